//! Runs the commands of golden scripts against a state.

mod parse;
mod show;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;

use goldenscript::Context;
use holdfast_machine::{
    Admission, Change, Command, Entry, LogPosition, Origin, Payload, Reply, Request, State,
    masters, objects, sessions,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A client's session, and how many writes it has made in it.
#[derive(Clone, Copy, Default)]
struct Client {
    session: u64,
    seq: u64,
}

/// One state, the clients that write to it, and the time.
pub(crate) struct Runner {
    state: State,
    clients: BTreeMap<String, Client>,
    clock_ms: u64,
    /// The requests of the open entry, between `begin` and `commit`, and who made them.
    open: Option<Vec<(String, Request)>>,
    shows_bookkeeping: bool,
    /// Show what those who watch learn, and not the changed rows.
    shows_events: bool,
}

impl Runner {
    pub(crate) fn new() -> Self {
        Runner {
            state: State::new(),
            clients: BTreeMap::new(),
            clock_ms: 0,
            open: None,
            shows_bookkeeping: false,
            shows_events: false,
        }
    }

    /// Applies one entry and shows what came of it.
    fn apply(&mut self, requests: Vec<(String, Request)>) -> Result<String> {
        let (names, requests): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let entry = Entry { clock_ms: self.clock_ms, wall_ms: 1_000_000 + self.clock_ms, requests };
        let entry = Entry::decode(&entry.encode()?)?;
        let index = self.state.header().applied.map_or(0, |applied| applied.index + 1);
        let at = LogPosition { term: 1, index };
        let applied = self.state.apply(at, Payload::Batch(&entry))?;
        let mut out = String::new();
        for (name, response) in names.iter().zip(&applied.responses) {
            if let Ok(Reply::Session(sessions::Reply::Opened { session, .. })) = response.outcome {
                self.clients.insert(name.clone(), Client { session, seq: 0 });
            }
            writeln!(out, "{}", show::response(response))?;
        }
        if self.shows_events {
            return Ok(out + &show::events(&applied.changes)?);
        }
        let shown = |change: &&Change| self.shows_bookkeeping || !show::is_bookkeeping(change);
        let changes: Vec<_> = applied.changes.iter().filter(shown).collect();
        out += &show::changes(&changes)?;
        out += &show::bodies(&applied.bodies)?;
        Ok(out)
    }

    /// The request that a command stands for.
    fn request(&mut self, name: &str, args: &parse::Args, command: Command) -> Result<Request> {
        if let Command::Session(_)
        | Command::Masters(masters::Command::ShrinkLease { .. })
        | Command::Objects(
            objects::Command::StageChunk { .. } | objects::Command::StageObjects { .. },
        ) = command
        {
            return Ok(Request { origin: None, command });
        }
        let client = self.clients.entry(name.to_owned()).or_default();
        let seq = match args.number("seq")? {
            Some(seq) => seq,
            None => {
                client.seq += 1;
                client.seq
            }
        };
        let origin = Origin {
            session: args.number("session")?.unwrap_or(client.session),
            seq,
            first_incomplete: args.number("first")?.unwrap_or(seq),
            resent: args.flag("resent")?.unwrap_or(false),
        };
        let origin = args.flag("sessionless")?.is_none().then_some(origin);
        Ok(Request { origin, command })
    }

    fn write(&mut self, command: &goldenscript::Command, context: &Context) -> Result<String> {
        let name = context.prefix.clone().unwrap_or_default();
        let (times, mut last) = (parse::Args::new(command, 1).number("times")?.unwrap_or(1), None);
        for nth in 1..=times {
            let args = parse::Args::new(command, nth);
            let session = self.clients.get(&name).copied().unwrap_or_default().session;
            let parsed = parse::command(&command.name, &args, session)?;
            let before = self.clients.clone();
            let mut request = self.request(&name, &args, parsed)?;
            if context.tags.contains("bytes") {
                self.clients = before;
                let (clock_ms, wall_ms) = (self.clock_ms, 1_000_000);
                let entry = Entry { clock_ms, wall_ms, requests: vec![request] };
                return Ok(show::hex(&entry.encode()?));
            }
            if context.tags.contains("admit") {
                self.clients = before;
                return Ok(self.admit(&mut request));
            }
            match &mut self.open {
                Some(requests) => requests.push((name.clone(), request)),
                None => last = Some(self.apply(vec![(name.clone(), request)])?),
            }
        }
        let last = last.unwrap_or_default();
        Ok(if times > 1 && !last.is_empty() {
            format!("the last of {times}:\n{last}")
        } else {
            last
        })
    }

    /// Shows what the leader would do with a request; nothing is applied, and no number used up.
    fn admit(&self, request: &mut Request) -> String {
        match self.state.admit(request) {
            Admission::Propose => format!("propose{}", show::note(request)),
            Admission::Answer(response) => {
                format!("behind a barrier: {}", show::response(&response))
            }
            Admission::AnswerNow(response) => format!("now: {}", show::response(&response)),
            Admission::Refuse(refusal) => format!("refuse {}: {refusal}", refusal.reason()),
        }
    }

    /// Reads the state back from its rows; it must be the same.
    fn reread(&self) -> Result<()> {
        let rows = self.state.rows().map(|(key, value)| (key.clone(), value.clone()));
        let reread = State::from_rows(rows.chain([self.state.header_row()]))?;
        if reread != self.state {
            return Err("the state is another one when it is read back".into());
        }
        Ok(())
    }
}

impl goldenscript::Runner for Runner {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &goldenscript::Command, context: &Context) -> Result<String> {
        let args = parse::Args::new(command, 1);
        match command.name.as_str() {
            "clock" => {
                self.clock_ms = args.at(0)?.parse()?;
                Ok(String::new())
            }
            "tick" => {
                if let Ok(clock) = args.at(0) {
                    self.clock_ms = clock.parse()?;
                }
                self.apply(vec![])
            }
            "begin" => {
                self.open = Some(vec![]);
                Ok(String::new())
            }
            "commit" => {
                let requests = self.open.take().ok_or("no entry is open")?;
                self.apply(requests)
            }
            "show_bookkeeping" => {
                self.shows_bookkeeping = true;
                Ok(String::new())
            }
            "show_events" => {
                self.shows_events = true;
                Ok(String::new())
            }
            "reread" => self.reread().map(|()| "the same state\n".to_owned()),
            _ => match show::query(&self.state, command)? {
                Some(output) => Ok(output),
                None => self.write(command, context),
            },
        }
    }

    fn end_script(&mut self) -> Result<()> {
        self.reread()?;
        match self.state.audit()?.as_slice() {
            [] => Ok(()),
            broken => Err(broken.join("; ").into()),
        }
    }
}
