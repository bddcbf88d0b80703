//! The control: two kernels with nothing of ours between them understand each other by the commands that the matrix
//! makes. What fails here is the description's fault, or the kernel's.

use crate::ground::{Ground, addresses, batch};
use crate::lab::Need;
use crate::lab::uml::Host;
use crate::live::{SOME, probes, unused};
use crate::matrix::{Cell, End};

#[test]
#[ignore = "two guests and a minute, to learn nothing of ipsecd"]
fn two_kernels_understand_each_other() {
    let Some(ground) = Ground::open(&[Need::Kernel]) else { return };
    ground.bridge([1, 2]);
    let (near, far) = (ground.guest(1), ground.guest(2));
    let cells = Cell::live();
    for (guest, end) in [(&near, End::Near), (&far, End::Far)] {
        batch(guest, &addresses(&cells, end, "vec0"));
        batch(guest, &cells.iter().map(|cell| cell.xfrm(end)).collect::<String>());
    }
    let mut faults = probes(&near, &cells, End::Near, SOME);
    faults.extend(unused(&cells, &far.run("ip -s xfrm state"), 4));
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
