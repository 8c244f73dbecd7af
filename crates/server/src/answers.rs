//! Answers of `/changes`, encoded and compressed once and shared by all devices that ask the same.
//!
//! What is shared is everything after the first line, which is the caller's own. A snapshot may be some commits old: its last line says
//! so, and the device catches up from there. An answer to a cursor is shared only while it ends at the head.

mod cache;
mod coding;
mod lines;

pub(crate) use cache::Answers;
pub(crate) use coding::{Coding, decompress};
pub(crate) use lines::Answer;
