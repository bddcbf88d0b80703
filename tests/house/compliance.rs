//! docs/compliance.md: a row per MUST, and each row's file and test exist.
//!
//! A row is `| section | what it demands | met or not | where | test |`. `where` names files, `test` names tests by the
//! function's name or by file; both in backquotes. A row that is not met gives the reason in place of the test.

use crate::{functions, read, root};

struct Row {
    line: usize,
    cells: Vec<String>,
}

fn rows() -> Vec<Row> {
    read(&root().join("docs/compliance.md"))
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("| §"))
        .map(|(number, line)| Row {
            line: number + 1,
            cells: line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect(),
        })
        .collect()
}

fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_row_names_files_and_tests_that_exist() {
    let functions = functions();
    let rows = rows();
    assert!(rows.len() > 50, "only {} rows", rows.len());
    let mut wrong = Vec::new();
    for Row { line, cells } in rows {
        let [_, _, state, place, proof] = cells.as_slice() else {
            wrong.push(format!("line {line}: {} cells and not 5", cells.len()));
            continue;
        };
        for file in quoted(place) {
            if !root().join(file).exists() {
                wrong.push(format!("line {line}: no file {file}"));
            }
        }
        match state.as_str() {
            "met" => {
                if quoted(proof).is_empty() {
                    wrong.push(format!("line {line}: met, and no test named"));
                }
                for test in quoted(proof) {
                    if !functions.contains(test) && !root().join(test).exists() {
                        wrong.push(format!("line {line}: no test {test}"));
                    }
                }
            }
            "not met" | "does not apply" => {
                if proof.len() < 10 {
                    wrong.push(format!("line {line}: {state}, and no reason given"));
                }
            }
            other => wrong.push(format!("line {line}: state {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "docs/compliance.md\n{}", wrong.join("\n"));
}
