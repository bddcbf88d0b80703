//! The seed corpora of the fuzz targets, replayed without libFuzzer, and mutated a little.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ipsecd::testing::fuzz::TARGETS;
use proptest::prelude::*;
use proptest::sample::Index;

#[test]
fn every_seed_passes_its_target() {
    for (name, body) in TARGETS {
        for (file, seed) in seeds(name) {
            let result = std::panic::catch_unwind(|| body(&seed));
            assert!(result.is_ok(), "fuzz/corpus/{name}/{file} fails");
        }
    }
}

#[test]
fn binaries_bodies_and_corpora_are_the_same_targets() {
    let bodies: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(bodies.len(), TARGETS.len(), "a name twice");
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("the fuzz crate");
    let binaries: BTreeSet<_> = manifest
        .split("\n[[bin]]\n")
        .skip(1)
        .map(|section| {
            let name = section.lines().find_map(|line| line.strip_prefix("name = \""));
            name.expect("a name").trim_end_matches('"').to_owned()
        })
        .collect();
    assert_eq!(binaries, bodies);
    for name in &bodies {
        let source = root().join(format!("fuzz/fuzz_targets/{name}.rs"));
        let source = fs::read_to_string(source).expect("the target's source");
        assert!(source.contains(&format!("fuzz::{name}(data)")), "{name} calls its own body");
        assert!(!seeds(name).is_empty(), "{name} has seeds");
    }
    let corpora = fs::read_dir(root().join("fuzz/corpus")).expect("the corpora");
    for corpus in corpora {
        let name = corpus.expect("a readable directory").file_name();
        assert!(bodies.contains(&*name.to_string_lossy()), "a corpus without target: {name:?}");
    }
}

#[test]
fn seeds_cut_in_many_places_pass() {
    for (name, body) in TARGETS {
        for (_, seed) in seeds(name) {
            // Everywhere in short ones; a whole exchange takes its time.
            for len in (0..seed.len()).step_by(seed.len() / 100 + 1) {
                body(&seed[..len]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_pass(
        target in any::<Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (_, body) = target.get(TARGETS);
        body(&bytes);
    }

    #[test]
    fn mutated_seeds_pass(
        target in any::<Index>(),
        seed in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<Index>()),
    ) {
        let (name, body) = target.get(TARGETS);
        let mut seeds = seeds(name);
        let (_, mut bytes) = seeds.swap_remove(seed.index(seeds.len()));
        for (place, value) in changes {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        body(&bytes);
    }
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = root().join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut seeds: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("a readable directory");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("a readable seed"))
        })
        .collect();
    seeds.sort();
    seeds
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
