//! What came out: for people, for scripts, and as comma-separated values.
//!
//! Times are microseconds in JSON and CSV, milliseconds in text. A cost is processor time by
//! operation: of all processes of the cluster together, and of this one.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::load::Measured;
use crate::args::{BenchArgs, Workload};
use crate::errors::{Failure, Outcome};
use crate::output::{table, table_text};
use crate::units::{human, millis};

/// The percentiles that are told, with the longest; and what they are called.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999), ("max", 1.0)];
/// The columns of a file of comma-separated values.
const CSV_HEADER: &str = "workload,nodes,value_bytes,rate,clients,seconds,ops,errors,unfinished,\
                          ops_per_s,p50_us,p90_us,p99_us,p99_9_us,max_us,node_cpu_us_per_op,\
                          client_cpu_us_per_op";

/// All figures of one command.
#[derive(Debug)]
pub(super) struct Report {
    workload: Workload,
    nodes: usize,
    value_bytes: u32,
    rate: Option<u32>,
    duration: Duration,
    warm_up: Duration,
    /// Whether it was ended early.
    pub(super) interrupted: bool,
    pub(super) runs: Vec<Run>,
}

/// The figures of one number of clients.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    clients: u32,
    elapsed: Duration,
    ops: u64,
    /// How many calls failed, and with which codes.
    errors: Vec<(&'static str, u64)>,
    unfinished: u64,
    /// In the order of [`QUANTILES`].
    latency_us: [u64; 5],
    node_cpu_us_per_op: Option<f64>,
    client_cpu_us_per_op: Option<f64>,
}

impl Run {
    pub(super) fn of(clients: u32, measured: &Measured) -> Run {
        let cost = |used: Option<Duration>| {
            used.filter(|_| measured.ops > 0)
                .map(|used| used.as_secs_f64() * 1e6 / count(measured.ops))
        };
        Run {
            clients,
            elapsed: measured.elapsed,
            ops: measured.ops,
            errors: measured.errors.iter().map(|(code, count)| (*code, *count)).collect(),
            unfinished: measured.unfinished,
            latency_us: quantiles(&measured.latency_us),
            node_cpu_us_per_op: cost(measured.nodes_cpu),
            client_cpu_us_per_op: cost(measured.client_cpu),
        }
    }

    fn ops_per_s(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { count(self.ops) / seconds } else { 0.0 }
    }

    fn failed(&self) -> u64 {
        self.errors.iter().map(|(_, count)| count).sum()
    }

    fn json(&self) -> Value {
        let latency: serde_json::Map<String, Value> = QUANTILES
            .iter()
            .zip(self.latency_us)
            .map(|((n, _), us)| ((*n).into(), json!(us)))
            .collect();
        let errors: serde_json::Map<String, Value> =
            self.errors.iter().map(|(code, count)| ((*code).into(), json!(count))).collect();
        json!({
            "clients": self.clients,
            "elapsed_ms": millis(self.elapsed),
            "ops": self.ops,
            "ops_per_s": rounded(self.ops_per_s()),
            "errors": errors,
            "unfinished": self.unfinished,
            "latency_us": latency,
            "node_cpu_us_per_op": self.node_cpu_us_per_op.map(rounded),
            "client_cpu_us_per_op": self.client_cpu_us_per_op.map(rounded),
        })
    }
}

impl Report {
    pub(super) fn new(args: &BenchArgs, nodes: usize) -> Report {
        Report {
            workload: args.workload,
            nodes,
            value_bytes: args.value_bytes,
            rate: args.rate,
            duration: args.duration,
            warm_up: args.warm_up,
            interrupted: false,
            runs: Vec::new(),
        }
    }

    /// A sentence that says what was measured, and a table.
    pub(super) fn text(&self) -> String {
        let nodes = match self.nodes {
            1 => "1 node".to_owned(),
            nodes => format!("{nodes} nodes"),
        };
        let head = match (self.workload, self.rate) {
            (Workload::Failover, _) => {
                format!(
                    "failover on {nodes}: from kill -9 of the leader to the next acknowledged write"
                )
            }
            (workload, rate) => format!(
                "{} on {nodes}, values of {} bytes, {}, {} each",
                workload.name(),
                self.value_bytes,
                match rate {
                    None => "closed loop".to_owned(),
                    Some(rate) => format!("open loop at {rate} calls/s"),
                },
                human(self.duration),
            ),
        };
        let mut lines = vec![head, String::new(), table_text(&self.table())];
        if self.interrupted {
            lines.push("\nInterrupted: these are the figures so far.".to_owned());
        }
        for run in &self.runs {
            for (code, count) in &run.errors {
                lines.push(format!("{} clients: {count} calls failed: {code}", run.clients));
            }
            if run.unfinished > 0 {
                let open = run.unfinished;
                lines.push(format!(
                    "{} clients: {open} calls were due and not answered: it cannot keep up",
                    run.clients
                ));
            }
        }
        lines.join("\n")
    }

    fn table(&self) -> comfy_table::Table {
        if self.workload == Workload::Failover {
            let mut table = table(&["KILLS", "P50 MS", "P90 MS", "P99 MS", "P99.9 MS", "MAX MS"]);
            for run in &self.runs {
                let ms = run.latency_us.map(|us| format!("{}", us / 1_000));
                table.add_row(std::iter::once(run.ops.to_string()).chain(ms));
            }
            return table;
        }
        let mut table = table(&[
            "CLIENTS",
            "OPS/S",
            "P50 MS",
            "P90 MS",
            "P99 MS",
            "P99.9 MS",
            "MAX MS",
            "NODES µS/OP",
            "CLIENT µS/OP",
        ]);
        let cost = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us:.0}"));
        for run in &self.runs {
            let mut row = vec![run.clients.to_string(), format!("{:.0}", run.ops_per_s())];
            row.extend(run.latency_us.map(|us| format!("{:.2}", count(us) / 1e3)));
            row.extend([cost(run.node_cpu_us_per_op), cost(run.client_cpu_us_per_op)]);
            table.add_row(row);
        }
        table
    }

    /// For scripts.
    pub(super) fn json(&self) -> Value {
        json!({
            "schema": "holdfast.bench/v1",
            "workload": self.workload.name(),
            "nodes": self.nodes,
            "value_bytes": self.value_bytes,
            "loop": if self.rate.is_some() { "open" } else { "closed" },
            "rate": self.rate,
            "duration_ms": millis(self.duration),
            "warm_up_ms": millis(self.warm_up),
            "interrupted": self.interrupted,
            "runs": self.runs.iter().map(Run::json).collect::<Vec<_>>(),
        })
    }

    /// Adds the runs to a file; one that is new or empty gets a header.
    pub(super) fn append_csv(&self, path: &Path) -> Outcome<()> {
        let append = || -> io::Result<()> {
            let mut file = File::options().create(true).append(true).open(path)?;
            if file.metadata()?.len() == 0 {
                writeln!(file, "{CSV_HEADER}")?;
            }
            self.runs.iter().try_for_each(|run| writeln!(file, "{}", self.csv(run)))
        };
        append().map_err(|error| Failure::file("write", path, &error))
    }

    fn csv(&self, run: &Run) -> String {
        let cost = |us: Option<f64>| us.map_or_else(String::new, |us| format!("{us:.1}"));
        let mut columns = vec![
            self.workload.name().to_owned(),
            self.nodes.to_string(),
            self.value_bytes.to_string(),
            self.rate.map_or_else(String::new, |rate| rate.to_string()),
            run.clients.to_string(),
            format!("{:.3}", run.elapsed.as_secs_f64()),
            run.ops.to_string(),
            run.failed().to_string(),
            run.unfinished.to_string(),
            format!("{:.1}", run.ops_per_s()),
        ];
        columns.extend(run.latency_us.map(|us| us.to_string()));
        columns.extend([cost(run.node_cpu_us_per_op), cost(run.client_cpu_us_per_op)]);
        columns.join(",")
    }
}

fn quantiles(histogram: &Histogram<u64>) -> [u64; 5] {
    QUANTILES.map(|(_, quantile)| histogram.value_at_quantile(quantile))
}

/// A count as a float; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn count(count: u64) -> f64 {
    count as f64
}

/// To a tenth, as a figure is worth.
fn rounded(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    //! What people, scripts and spreadsheets read, to the letter.
    use super::*;

    fn report() -> Report {
        let mut measured = Measured::new();
        for ms in 1..=1_000 {
            measured.succeeded(Duration::from_millis(ms));
        }
        measured.elapsed = Duration::from_secs(2);
        measured.nodes_cpu = Some(Duration::from_millis(1_500));
        measured.errors.insert("no-quorum", 3);
        Report {
            workload: Workload::State,
            nodes: 3,
            value_bytes: 200,
            rate: None,
            duration: Duration::from_secs(2),
            warm_up: Duration::from_secs(1),
            interrupted: false,
            runs: vec![Run::of(16, &measured)],
        }
    }

    #[test]
    fn text_has_a_sentence_and_a_table() {
        let mut report = report();
        report.runs[0].unfinished = 2;
        assert_eq!(
            report.text(),
            "state on 3 nodes, values of 200 bytes, closed loop, 2.0 s each\n\n\
             CLIENTS  OPS/S  P50 MS  P90 MS  P99 MS  P99.9 MS  MAX MS   NODES µS/OP  CLIENT µS/OP\n\
             16       500    500.22  900.10  990.21  999.42    1000.45  1500         -\n\
             16 clients: 3 calls failed: no-quorum\n\
             16 clients: 2 calls were due and not answered: it cannot keep up"
        );
        report.interrupted = true;
        assert!(report.text().contains("Interrupted: these are the figures so far."));
    }

    #[test]
    fn json_has_microseconds() {
        let json = report().json();
        assert_eq!(json["schema"], "holdfast.bench/v1");
        assert_eq!(json["loop"], "closed");
        assert_eq!(
            json["runs"][0].to_string(),
            "{\"client_cpu_us_per_op\":null,\"clients\":16,\"elapsed_ms\":2000,\"errors\":\
             {\"no-quorum\":3},\"latency_us\":{\"max\":1000447,\"p50\":500223,\"p90\":900095,\
             \"p99\":990207,\"p99_9\":999423},\"node_cpu_us_per_op\":1500.0,\"ops\":1000,\
             \"ops_per_s\":500.0,\"unfinished\":0}"
        );
    }

    #[test]
    fn csv_has_one_header_however_often_it_is_added_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("figures.csv");
        report().append_csv(&path).unwrap();
        report().append_csv(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let row =
            "state,3,200,,16,2.000,1000,3,0,500.0,500223,900095,990207,999423,1000447,1500.0,";
        assert_eq!(lines, [CSV_HEADER, row, row]);
        assert_eq!(CSV_HEADER.split(',').count(), row.split(',').count());
    }
}
