//! Sources: where packets come from. Each worker reads one on its thread until it ends or is told to
//! stop, and lets time pass.

mod file;
mod live;
mod points;

pub(crate) use file::File;
pub(crate) use live::{Live, owns_socket, wall_clock_us};
