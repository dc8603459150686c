//! Bad inputs on a device.
