//! An in-process Glance.
