//! What each command does.

mod attest;
mod build;
mod cache;
mod caches;
mod call;
mod compile;
mod containers;
mod debug;
mod explain;
mod fmt;
mod graph;
mod history;
mod images;
mod login;
mod page;
mod plain;
mod pull;
mod push;
mod report;
mod upkeep;

use rbc_runtime::store::Store;

use crate::{
    cli::{CacheCommand, Cli, Command, ProgressKind},
    state,
};

pub use report::{Failure, Outcome};

/// Does what fills the state folder, and then evicts what is beyond its limit.
fn fill(store: &Store, act: impl FnOnce(&Store) -> Outcome) -> Outcome {
    let limit = state::limit(store, None)?;
    act(store)?;
    if let Some(limit) = limit {
        let settled = limit.settle();
        upkeep::tell_evicted(&limit, ProgressKind::Auto, false);
        settled?;
    }
    Ok(())
}

/// Carries out a command.
pub fn run(cli: Cli) -> Outcome {
    let root = cli.root.as_deref();
    match cli.command {
        Command::Build(args) => build::build(&state::open(root)?, &args),
        Command::Compile(args) => compile::compile(root, &args),
        Command::Run(args) => build::run(&state::open(root)?, &args),
        Command::Fmt(args) => fmt::fmt(&args),
        Command::Inspect(args) => graph::inspect(&args),
        Command::Explain(args) => explain::explain(&state::open_to_look(root)?, &args),
        Command::Diff(args) => explain::diff(&args),
        Command::History(args) => history::list(&state::open_to_look(root)?, &args),
        Command::Logs(args) => history::logs(&state::open_to_look(root)?, &args),
        Command::Report(args) => page::report(&state::open_to_look(root)?, &args),
        Command::Load(args) => fill(&state::open(root)?, |store| images::load(store, &args)),
        Command::Save(args) => images::save(&state::open_to_look(root)?, &args),
        Command::Images(args) => images::list(&state::open_to_look(root)?, &args),
        Command::Tag(args) => images::tag(&state::open(root)?, &args),
        Command::Rmi(args) => images::remove(&state::open_to_free(root)?, &args),
        Command::Push(args) => push::push(&state::open(root)?, &args),
        Command::Pull(args) => fill(&state::open(root)?, |store| pull::pull(store, &args)),
        Command::Login(args) => login::login(&args),
        Command::Logout(args) => login::logout(&args),
        Command::Create(args) => containers::create(&state::open(root)?, &args),
        Command::Cp(args) => containers::copy(&state::open(root)?, &args),
        Command::Ps => containers::list(&state::open_to_look(root)?),
        Command::Rm(args) => containers::remove(&state::open(root)?, &args),
        Command::BaseImage(args) => images::make_base(&state::open(root)?, &args),
        Command::Cache(CacheCommand::Export(args)) => cache::export(&state::open(root)?, &args),
        Command::Cache(CacheCommand::Import(args)) => {
            fill(&state::open(root)?, |store| cache::import(store, &args))
        }
        Command::Du(args) => upkeep::du(&state::open_to_look(root)?, &args),
        Command::Prune(args) if args.dry_run => upkeep::prune(&state::open_to_look(root)?, &args),
        Command::Prune(args) => upkeep::prune(&state::open_to_free(root)?, &args),
        Command::Fsck(args) if args.check => upkeep::fsck(&state::open_read_only(root)?, &args),
        Command::Fsck(args) => upkeep::fsck(&state::open_to_repair(root)?, &args),
        Command::Completions { shell } => plain::completions(shell),
        Command::Man { dir } => plain::man_pages(&dir),
    }
}
