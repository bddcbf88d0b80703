//! Exchange tests of IKE: two endpoints, a virtual clock, a seeded network. See `docs/testing.md`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to fail")]

mod acquire;
mod additional;
mod announce;
mod auth_failure;
mod cases;
mod cert;
mod child;
mod childless;
mod collision;
mod complaint;
mod configuration;
mod cookie;
mod delete;
mod demands;
mod door;
mod eap;
mod establish;
mod fragments;
mod harness;
mod liveness;
mod lost;
mod many;
mod mobike;
mod modes;
mod mutate;
mod nat;
mod ppk;
mod ppk_eap;
mod puzzle;
mod qcd;
mod reauth;
mod refused;
mod rekey;
mod resource;
mod review;
mod secrets;
mod seeds;
mod strict;
mod support;
mod unprotected;
mod window;
