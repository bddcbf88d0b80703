//! The shell around the core: [`driver`] owns the IKE endpoint, [`worker`]s move packets, the rest serves them.
//!
//! Driver: one thread, tokio. Workers: two threads, which share with it a snapshot of the datapath and bounded
//! queues, and no lock.

pub mod addresses;
pub mod advice;
pub mod agenda;
pub mod audit;
pub mod backoff;
pub mod capture;
pub mod counters;
mod deliver;
pub mod doctor;
pub mod driver;
pub mod duty;
pub mod explain;
pub mod jobs;
pub mod journal;
pub mod keylog;
pub mod load;
pub mod log;
pub mod manual;
pub mod metrics;
pub mod names;
pub mod network;
pub mod peers;
pub mod qcd;
mod receive;
#[cfg(test)]
mod sample;
pub mod secrets;
mod send;
pub mod services;
pub mod sockets;
pub mod spd;
pub mod status;
pub mod trace;
pub mod version;
pub mod worker;

pub use driver::{DaemonError, Options, run};
