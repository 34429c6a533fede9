//! What past builds did: one record a build, kept in the state folder.
//!
//! While a build runs, its [`Journal`] notes what becomes of each step. At the end, however it ends,
//! the journal becomes a [`Record`] in `builds/<id>/` beside the graph. Records are what
//! [`crate::explain`] compares and what reports are made of. Only the last [`KEPT`] are kept.
//!
//! | place | what |
//! | --- | --- |
//! | `builds/<id>/record.json` | the [`Record`] |
//! | `builds/<id>/graph.bin` | the graph, pinned |
//! | `builds/listings/<digest>` | the files behind the digest of a context selection |
//! | `logs/<id>/<step>.log` | what steps printed |
//! | `logs/<id>/record.json` | what is to be done, until there is a record; locked by the process that does it |

mod journal;
mod keep;
mod listing;
mod record;

pub(crate) use journal::log_name;
pub use journal::{Journal, Outcome, write_listings};
pub use keep::{Builds, HistoryError, KEPT, Past};
pub use listing::{Content, FileFacts, Listing};
pub use record::{Found, Miss, Place, Record, Status, StepRecord, StepState, Subject};
