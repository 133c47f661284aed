//! Keystone and Glance over HTTP.
