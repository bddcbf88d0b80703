//! The harness that tests, benches and fuzz targets share (feature `testing`).

pub mod fuzz;
