//! All variables that begin with a prefix, as they come.

use holdfast_proto::v1 as proto;

use super::key::Prefix;
use super::value::Variable;
use crate::client::Client;
use crate::error::{Error, Header};
use crate::stream::Parts;

/// Variables in order of their keys, all at one revision. Dropping it ends it.
#[derive(Debug)]
pub struct Listing {
    parts: Parts<proto::ListVariablesResponse>,
    only_keys: bool,
}

impl Listing {
    pub(super) async fn open(
        client: &Client,
        prefix: &Prefix,
        only_keys: bool,
    ) -> Result<Listing, Error> {
        let request = proto::ListVariablesRequest {
            read: None,
            namespace: client.namespace().to_owned(),
            key_prefix: prefix.as_bytes().to_vec(),
            only_keys,
        };
        let opened = client.read(request).await?;
        Ok(Listing { parts: Parts::new("the listing", opened), only_keys })
    }

    /// The revision that all of it is true at, and who answers.
    #[must_use]
    pub fn header(&self) -> &Header {
        self.parts.header()
    }

    /// The next variables; none when there are no more.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the stream broke; [`Error::Refused`] with reason `SLOW_READER` if it was
    /// not read for 10 s. Either way they are to be read anew.
    pub async fn next(&mut self) -> Result<Option<Vec<Variable>>, Error> {
        let part = self.parts.next().await?;
        let variable = |found| Variable::from_wire(found, !self.only_keys);
        Ok(part.map(|part| part.variables.into_iter().map(variable).collect()))
    }
}
