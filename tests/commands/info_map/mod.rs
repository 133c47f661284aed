//! `info`, `map` and `convert --map`: what is said of an image is what QEMU says of it, pictures are whole, and a map
//! is believed only as far as something proves it.

#[cfg(feature = "embedded")]
mod glance;
mod holes;
mod info;
mod map;
mod picture;
#[cfg(feature = "openstack")]
mod real;
