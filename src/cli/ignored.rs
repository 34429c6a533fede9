//! Options of `docker build` that its BuildKit takes and ignores, so that scripts which pass them go
//! on working.

use clap::Args;

/// Options without an effect.
#[derive(Debug, Args)]
pub struct IgnoredFlags {
    #[arg(long, hide = true, value_name = "NAME")]
    builder: Option<String>,
    #[arg(long, hide = true)]
    compress: bool,
    #[arg(long, hide = true, value_name = "N", allow_negative_numbers = true)]
    cpu_period: Option<i64>,
    #[arg(long, hide = true, value_name = "N", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    #[arg(long, short = 'c', hide = true, value_name = "N")]
    cpu_shares: Option<i64>,
    #[arg(long, hide = true, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    #[arg(long, hide = true, value_name = "LIST")]
    cpuset_mems: Option<String>,
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    #[arg(long, hide = true)]
    force_rm: bool,
    #[arg(long, hide = true, value_name = "NAME")]
    isolation: Option<String>,
    #[arg(long, short = 'm', hide = true, value_name = "BYTES")]
    memory: Option<String>,
    #[arg(long, hide = true, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    #[arg(long, hide = true)]
    rm: bool,
    #[arg(long, hide = true, value_name = "OPTION")]
    security_opt: Vec<String>,
    #[arg(long, hide = true)]
    squash: bool,
}

impl IgnoredFlags {
    /// Those that were given and ask for something that does not happen.
    pub fn missed(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("--cpu-period", self.cpu_period.is_some()),
            ("--cpu-quota", self.cpu_quota.is_some()),
            ("--cpu-shares", self.cpu_shares.is_some()),
            ("--cpuset-cpus", self.cpuset_cpus.is_some()),
            ("--cpuset-mems", self.cpuset_mems.is_some()),
            ("--isolation", self.isolation.as_deref().is_some_and(|name| name != "default")),
            ("--memory", self.memory.is_some()),
            ("--memory-swap", self.memory_swap.is_some()),
            ("--security-opt", !self.security_opt.is_empty()),
            ("--squash", self.squash),
        ];
        given.into_iter().filter_map(|(name, given)| given.then_some(name))
    }
}
