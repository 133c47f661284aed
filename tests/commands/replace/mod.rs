//! `snapcow replace`: in the lab; and ended at every step, against the in-process Glance, where the same command goes on.

mod ended;
mod in_the_lab;
