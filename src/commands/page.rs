//! `rbc report`: a page about a past build.

use std::{io::Write, path::Path};

use rbc_runtime::{history::Builds, store::Store};

use super::{Outcome, history};
use crate::{cli::ReportArgs, inputs, report};

pub fn report(store: &Store, args: &ReportArgs) -> Outcome {
    let builds = Builds::of(store);
    let id = history::chosen(&builds, args.build.as_deref())?;
    let mut page = Vec::new();
    report::write(&report::gather(store, &id)?, &mut page)?;
    if args.output == Path::new("-") {
        std::io::stdout().lock().write_all(&page)?;
    } else {
        inputs::write_file(&args.output, &page)?;
    }
    Ok(())
}
