//! Tables of a base, a source and an action, with the files that come out.

mod copy;
mod scale;
mod simple;
mod support;
mod unpack;
