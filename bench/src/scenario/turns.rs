//! Turns: every server has its phase in every round, in another order each time, and is measured in its phase alone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::contenders::{Running, Server};
use crate::load::{Group, Plan};
use crate::report::Sample;

/// A silent client is asked after 30 s whether it is there; before that it says so by itself.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What one contender did in one round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turn {
    /// Server CPU in microseconds per event and client.
    pub(crate) cpu: f64,
    /// The part of it that is user time, 0 to 1.
    pub(crate) user: f64,
    /// Deliveries a second.
    pub(crate) rate: f64,
    /// Events a second.
    pub(crate) events: f64,
    /// Publish to receipt in milliseconds.
    pub(crate) p50: f64,
    /// The same, 99 of 100.
    pub(crate) p99: f64,
    /// Bytes on the wire per event and client.
    pub(crate) bytes: f64,
    /// Events that did not come, or came in another order.
    pub(crate) faults: f64,
}

/// The turns of one contender, over all rounds.
#[derive(Debug)]
pub(crate) struct Turns {
    pub(crate) name: String,
    pub(crate) turns: Vec<Turn>,
}

impl Turns {
    /// One figure over all rounds.
    pub(crate) fn sample(&self, figure: impl Fn(&Turn) -> f64) -> Sample {
        self.turns.iter().map(figure).collect()
    }
}

/// Measures one phase of a group.
pub(crate) fn turn(server: &Server, group: &mut Group, plan: Plan) -> Result<Turn> {
    let before = server.cpu()?;
    let outcome = group.phase(plan)?;
    let used = server.cpu()? - before;
    let delivered = outcome.delivered.max(1) as f64;
    let seconds = outcome.time.as_secs_f64();
    let millis = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Turn {
        cpu: used.total as f64 / 1000.0 / delivered,
        user: used.user as f64 / (used.user + used.system).max(1) as f64,
        rate: delivered / seconds,
        events: outcome.published as f64 / seconds,
        p50: millis(0.5),
        p99: millis(0.99),
        bytes: outcome.bytes as f64 / delivered,
        faults: (outcome.lost + outcome.disordered) as f64,
    })
}

/// Gives everyone so many turns.
pub(crate) fn rotate(
    running: &mut [Running],
    rounds: usize,
    plan: impl Fn(&Running) -> Plan,
) -> Result<Vec<Turns>> {
    let mut all: Vec<Turns> =
        running.iter().map(|one| Turns { name: one.name.clone(), turns: Vec::new() }).collect();
    let mut kept_alive = Instant::now() - KEEP_ALIVE;
    for round in 0..rounds {
        for step in 0..running.len() {
            if kept_alive.elapsed() >= KEEP_ALIVE {
                running.iter().try_for_each(|one| one.group.keep_alive())?;
                kept_alive = Instant::now();
                // So that reading these is nobody's turn.
                std::thread::sleep(Duration::from_millis(300));
            }
            // Another one begins each time, and every second round goes backwards.
            let step = if round % 2 == 0 { step } else { running.len() - 1 - step };
            let at = (step + round) % running.len();
            let plan = plan(&running[at]);
            let Running { name, server, group } = &mut running[at];
            let turn = turn(server, group, plan).with_context(|| format!("{name}, round {round}"))?;
            all[at].turns.push(turn);
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    Ok(all)
}
