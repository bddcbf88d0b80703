//! The formats of `ipsecd::wire`, from outside: against recorded traffic, generated values and the seed
//! corpora of the fuzz targets.

mod captures;
mod corpus;
mod headers;
mod payloads;
