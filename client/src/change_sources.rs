//! Change sources: each is owned by at most one live master.
//!
//! Every grant has a *token*, the revision that granted it, which rises with every grant and is
//! never reused. A write that carries the token as its [`Fence`] is refused once the claim has
//! moved on.
//!
//! Change sources of one *group* belong to one master, all or none: what is said here of one of them
//! happens to all, in one step and under one token.

use std::time::Duration;

use holdfast_proto::v1 as proto;

use crate::client::Client;
use crate::error::Error;

/// The change sources of the namespace of the client it came from.
#[derive(Debug, Clone)]
pub struct ChangeSources {
    client: Client,
}

/// A change source as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeSource {
    /// Positive and never reused.
    pub id: i64,
    /// Its name, unique within the namespace.
    pub name: String,
    /// Who owns it; none if nobody does.
    pub claimant: Option<Claimant>,
    /// The group it is in, all of which has the same owner and token.
    pub group: Option<String>,
}

/// Who owns a change source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The owner.
    pub master: i64,
    /// The owner's name.
    pub master_name: String,
    /// The revision that granted the claim.
    pub token: u64,
    /// The lease that the claim hangs on; none for a claim without one.
    pub lease: Option<u64>,
    /// How long the lease has to run by the cluster's clock; zero without a lease.
    pub lease_remaining: Duration,
}

/// What became of a wish to own a change source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is ours under this token.
    Granted {
        /// Proof of the claim, for [`Fence`] and [`ChangeSources::release`].
        token: u64,
    },
    /// Somebody owns it; nothing changed.
    AlreadyClaimed(Claimant),
}

/// What became of a wish to own a change source as soon as it is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// It is ours under this token.
    Granted {
        /// Proof of the claim, for [`Fence`] and [`ChangeSources::release`].
        token: u64,
    },
    /// Somebody owns it; the lease waits in line.
    Waiting {
        /// How many are before it.
        ahead: u64,
    },
}

/// Proof that the writer still owns a change source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The change source.
    pub change_source: i64,
    /// The token under which it was granted.
    pub token: u64,
}

impl ChangeSources {
    pub(crate) fn new(client: Client) -> ChangeSources {
        ChangeSources { client }
    }

    /// The id of a change source; creates it, unowned, if there is none.
    ///
    /// # Errors
    /// Those of a write.
    pub async fn find_id(&self, name: &str) -> Result<i64, Error> {
        let request = proto::FindChangeSourceIdRequest {
            context: None,
            namespace: self.namespace(),
            name: name.to_owned(),
        };
        Ok(self.client.write(request).await?.changesource_id)
    }

    /// Buildbot's claim: gives a change source to a master, which needs no lease. If it is owned
    /// already, be it by the same master, nothing changes.
    ///
    /// # Errors
    /// Those of a write; refused as `UNKNOWN_CHANGE_SOURCE` or `UNKNOWN_MASTER`.
    pub async fn set_master(&self, change_source: i64, master: i64) -> Result<Claimed, Error> {
        let response = self.set(change_source, Some(master)).await?;
        match response.outcome {
            Some(proto::set_change_source_master_response::Outcome::Token(token)) => {
                Ok(Claimed::Granted { token })
            }
            Some(proto::set_change_source_master_response::Outcome::AlreadyClaimed(claimant)) => {
                Ok(Claimed::AlreadyClaimed(claimant.into()))
            }
            None => Err(Error::malformed("SetChangeSourceMaster", response.header.as_ref())),
        }
    }

    /// Takes a change source from its owner, whoever that is.
    ///
    /// # Errors
    /// Those of a write; refused as `UNKNOWN_CHANGE_SOURCE`.
    pub async fn unset_master(&self, change_source: i64) -> Result<(), Error> {
        self.set(change_source, None).await.map(drop)
    }

    /// A change source, none if there is no such one. Linearizable.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn get(&self, change_source: i64) -> Result<Option<ChangeSource>, Error> {
        let request = proto::GetChangeSourceRequest {
            read: None,
            namespace: self.namespace(),
            changesource_id: change_source,
        };
        Ok(self.client.read(request).await?.changesource.map(ChangeSource::from))
    }

    /// The change sources of the namespace, in order of their ids: with `active`, only the owned
    /// (true) or the free ones (false); with `master`, only those that it owns. Linearizable.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn list(
        &self,
        active: Option<bool>,
        master: Option<i64>,
    ) -> Result<Vec<ChangeSource>, Error> {
        let request = proto::ListChangeSourcesRequest {
            read: None,
            namespace: self.namespace(),
            active,
            master_id: master,
        };
        let response = self.client.read(request).await?;
        Ok(response.changesources.into_iter().map(ChangeSource::from).collect())
    }

    /// Claims a change source under a lease. Doing it again under the same lease gives the same
    /// token. A [`LeaseHolder`](crate::LeaseHolder) does this with a check that the lease lives.
    ///
    /// # Errors
    /// Those of a write; refused as `LEASE_LOST` if the lease has ended.
    pub async fn claim(&self, lease: u64, change_source: i64) -> Result<Claimed, Error> {
        let request = proto::ClaimRequest {
            context: None,
            namespace: self.namespace(),
            changesource_id: change_source,
            lease_id: lease,
        };
        let response = self.client.write(request).await?;
        match response.outcome {
            Some(proto::claim_response::Outcome::Token(token)) => Ok(Claimed::Granted { token }),
            Some(proto::claim_response::Outcome::AlreadyClaimed(claimant)) => {
                Ok(Claimed::AlreadyClaimed(claimant.into()))
            }
            None => Err(Error::malformed("Claim", response.header.as_ref())),
        }
    }

    /// Gives a claim back, if it is still held under this very token; returns whether it was.
    ///
    /// # Errors
    /// Those of a write; refused as `UNKNOWN_CHANGE_SOURCE`.
    pub async fn release(&self, change_source: i64, token: u64) -> Result<bool, Error> {
        let request = proto::ReleaseRequest {
            context: None,
            namespace: self.namespace(),
            changesource_id: change_source,
            token,
        };
        Ok(self.client.write(request).await?.released)
    }

    /// Claims under a lease, or waits in line for it; doing it again keeps the place. Returns at
    /// once: a later grant is a change to watch for. [`LeaseHolder::await_claim`] does all that.
    ///
    /// [`LeaseHolder::await_claim`]: crate::LeaseHolder::await_claim
    ///
    /// # Errors
    /// Those of a write; refused as `UNKNOWN_CHANGE_SOURCE`, `LEASE_LOST`, `TOO_MANY_CLAIMS`,
    /// `TOO_MANY_WAITERS` or `TOO_MANY_PLACES`.
    pub async fn await_claim(&self, lease: u64, change_source: i64) -> Result<Awaited, Error> {
        let request = proto::AwaitClaimRequest {
            context: None,
            namespace: self.namespace(),
            changesource_id: change_source,
            lease_id: lease,
        };
        let response = self.client.write(request).await?;
        match response.outcome {
            Some(proto::await_claim_response::Outcome::Token(token)) => {
                Ok(Awaited::Granted { token })
            }
            Some(proto::await_claim_response::Outcome::Waiting(proto::Waiting { ahead })) => {
                Ok(Awaited::Waiting { ahead })
            }
            None => Err(Error::malformed("AwaitClaim", response.header.as_ref())),
        }
    }

    /// Leaves the line; returns whether the lease waited. What was granted meanwhile stays.
    ///
    /// # Errors
    /// Those of a write; refused as `UNKNOWN_CHANGE_SOURCE`.
    pub async fn stop_awaiting(&self, lease: u64, change_source: i64) -> Result<bool, Error> {
        let request = proto::StopAwaitingRequest {
            context: None,
            namespace: self.namespace(),
            changesource_id: change_source,
            lease_id: lease,
        };
        Ok(self.client.write(request).await?.waited)
    }

    /// Puts a change source into a group, which its first member makes; without one, takes it out of
    /// the group it is in. Returns whether that changed anything. A group has at most 256 members.
    ///
    /// # Errors
    /// Those of a write; refused as `UNKNOWN_CHANGE_SOURCE`, as `CHANGE_SOURCE_IN_USE` unless the
    /// change source and the group to join are free, or as `TOO_MANY_MEMBERS`.
    pub async fn set_group(&self, change_source: i64, group: Option<&str>) -> Result<bool, Error> {
        let request = proto::SetGroupRequest {
            context: None,
            namespace: self.namespace(),
            changesource_id: change_source,
            group: group.map(str::to_owned),
        };
        Ok(self.client.write(request).await?.changed)
    }

    fn namespace(&self) -> String {
        self.client.namespace().to_owned()
    }

    async fn set(
        &self,
        change_source: i64,
        master: Option<i64>,
    ) -> Result<proto::SetChangeSourceMasterResponse, Error> {
        let request = proto::SetChangeSourceMasterRequest {
            context: None,
            namespace: self.namespace(),
            changesource_id: change_source,
            master_id: master,
        };
        self.client.write(request).await
    }
}

impl From<proto::ChangeSource> for ChangeSource {
    fn from(source: proto::ChangeSource) -> ChangeSource {
        ChangeSource {
            id: source.changesource_id,
            name: source.name,
            claimant: source.claimant.map(Claimant::from),
            group: Some(source.group).filter(|group| !group.is_empty()),
        }
    }
}

impl From<proto::Claimant> for Claimant {
    fn from(claimant: proto::Claimant) -> Claimant {
        Claimant {
            master: claimant.master_id,
            master_name: claimant.master_name,
            token: claimant.token,
            lease: (claimant.lease_id != 0).then_some(claimant.lease_id),
            lease_remaining: Duration::from_millis(claimant.lease_remaining_ms),
        }
    }
}

impl From<Fence> for proto::Fence {
    fn from(fence: Fence) -> proto::Fence {
        proto::Fence { changesource_id: fence.change_source, token: fence.token }
    }
}
