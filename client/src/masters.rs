//! Masters and the calls on their leases, one by one.
//!
//! A master that wants to own change sources needs its lease renewed in time and must stop when it
//! is lost; [`LeaseHolder`](crate::LeaseHolder) sees to both, and these calls are what it is made of.

use std::time::Duration;

use holdfast_proto::v1 as proto;

use crate::client::Client;
use crate::error::Error;
use crate::instance::Instance;

/// The masters of the namespace of the client it came from.
#[derive(Debug, Clone)]
pub struct Masters {
    client: Client,
}

/// A master as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// Positive and never reused.
    pub id: i64,
    /// Its name, unique within the namespace.
    pub name: String,
    /// Whether it is marked active, by its lease or by [`Masters::set_state`].
    pub active: bool,
    /// Its lease, if it has a live one.
    pub lease: Option<u64>,
    /// How long the lease has to run by the cluster's clock; zero without a lease.
    pub lease_remaining: Duration,
    /// Wall-clock time of the leader at the last sign of life, in milliseconds since 1970; for
    /// display only.
    pub last_active_unix_ms: u64,
    /// How many change sources it owns.
    pub claims: u32,
}

/// A lease that has been granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The lease: a revision, rising with every lease and never reused.
    pub id: u64,
    /// The master that it makes active.
    pub master: i64,
    /// How long it lives from the last renewal.
    pub ttl: Duration,
}

/// A renewal of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// How long the lease lives, counted from before the renewal was sent.
    pub ttl: Duration,
    /// 1 for the first renewal of a lease, and rising by 1.
    pub number: u64,
}

/// What became of the wish for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenedLease {
    /// It was granted.
    Granted(Lease),
    /// Another instance holds a live lease of that name; nothing changed.
    HeldBy(HeldBy),
}

/// Who holds the lease of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBy {
    /// The master of that name.
    pub master: i64,
    /// Its name.
    pub name: String,
    /// The live lease.
    pub lease: u64,
    /// How long it has to run by the cluster's clock, if it is not renewed.
    pub remaining: Duration,
}

impl Masters {
    pub(crate) fn new(client: Client) -> Masters {
        Masters { client }
    }

    /// The id of a master; creates its record, inactive, if there is none.
    ///
    /// # Errors
    /// Those of a write.
    pub async fn find_id(&self, name: &str) -> Result<i64, Error> {
        let request = proto::FindMasterIdRequest {
            context: None,
            namespace: self.namespace(),
            name: name.to_owned(),
        };
        Ok(self.client.write(request).await?.master_id)
    }

    /// Marks a master active or inactive; inactive ends its lease and all its claims in the same
    /// step. Returns whether the mark changed.
    ///
    /// # Errors
    /// Those of a write; refused as `UNKNOWN_MASTER` if there is no such master.
    pub async fn set_state(&self, master: i64, active: bool) -> Result<bool, Error> {
        let request = proto::SetMasterStateRequest {
            context: None,
            namespace: self.namespace(),
            master_id: master,
            active,
        };
        Ok(self.client.write(request).await?.changed)
    }

    /// A master, none if there is no such one. Linearizable.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn get(&self, master: i64) -> Result<Option<Master>, Error> {
        let request =
            proto::GetMasterRequest { read: None, namespace: self.namespace(), master_id: master };
        Ok(self.client.read(request).await?.master.map(Master::from))
    }

    /// All masters of the namespace, in order of their ids. Linearizable.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn list(&self) -> Result<Vec<Master>, Error> {
        let request = proto::ListMastersRequest { read: None, namespace: self.namespace() };
        let response = self.client.read(request).await?;
        Ok(response.masters.into_iter().map(Master::from).collect())
    }

    /// Opens a lease, which makes the master of that name active while it lives. A lease that the
    /// same instance had before ends in the same step, with all its claims; another instance's
    /// lease has to run out first. `ttl` is 500 ms to 24 h, in whole milliseconds.
    ///
    /// The lease counts from before this call was sent.
    ///
    /// # Errors
    /// Those of a write; refused as `BAD_TTL` if `ttl` is out of range.
    pub async fn open_lease(
        &self,
        name: &str,
        instance: &Instance,
        ttl: Duration,
    ) -> Result<OpenedLease, Error> {
        self.open_lease_with_grace(name, instance, ttl, Duration::ZERO).await
    }

    /// As [`Masters::open_lease`], with a lease that a node shrinks to `grace` once it has seen the
    /// connection break to which the lease is attached. `grace` is zero, for never, or 500 ms to
    /// `ttl`, in whole milliseconds. Only a [`LeaseHolder`](crate::LeaseHolder) attaches leases.
    ///
    /// # Errors
    /// As [`Masters::open_lease`]; refused as `OUT_OF_BOUNDS` if `grace` is out of range.
    pub async fn open_lease_with_grace(
        &self,
        name: &str,
        instance: &Instance,
        ttl: Duration,
        grace: Duration,
    ) -> Result<OpenedLease, Error> {
        let request = proto::OpenLeaseRequest {
            context: None,
            namespace: self.namespace(),
            name: name.to_owned(),
            instance: instance.secret().to_vec(),
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        };
        let response = self.client.write(request).await?;
        match response.outcome {
            Some(proto::open_lease_response::Outcome::Lease(lease)) => {
                Ok(OpenedLease::Granted(Lease {
                    id: lease.lease_id,
                    master: lease.master_id,
                    ttl: Duration::from_millis(lease.ttl_ms),
                }))
            }
            Some(proto::open_lease_response::Outcome::HeldBy(holder)) => {
                Ok(OpenedLease::HeldBy(HeldBy {
                    master: holder.master_id,
                    name: holder.name,
                    lease: holder.lease_id,
                    remaining: Duration::from_millis(holder.lease_remaining_ms),
                }))
            }
            None => Err(Error::malformed("OpenLease", response.header.as_ref())),
        }
    }

    /// Renews exactly this lease. Nothing is sent any more once the future is dropped.
    ///
    /// # Errors
    /// Those of a write; refused as `LEASE_LOST` once the lease has ended.
    pub async fn keep_alive(&self, lease: u64) -> Result<Renewal, Error> {
        self.renew(lease, false).await
    }

    /// Renews exactly this lease for its grace alone, also if it had longer to run: what a holder does
    /// that is attached to no node, where nobody would see it go.
    ///
    /// # Errors
    /// As [`Masters::keep_alive`]; refused as `NO_GRACE` if the lease has none.
    pub async fn keep_within_grace(&self, lease: u64) -> Result<Renewal, Error> {
        self.renew(lease, true).await
    }

    async fn renew(&self, lease: u64, within_grace: bool) -> Result<Renewal, Error> {
        let namespace = self.namespace();
        let request =
            proto::KeepAliveRequest { context: None, namespace, lease_id: lease, within_grace };
        let response = self.client.write(request).await?;
        Ok(Renewal { ttl: Duration::from_millis(response.ttl_ms), number: response.renewal })
    }

    /// Ends a lease and frees all its claims at once; returns how many there were.
    ///
    /// # Errors
    /// Those of a write; refused as `LEASE_LOST` if it has ended already.
    pub async fn close_lease(&self, lease: u64) -> Result<u32, Error> {
        let request = proto::CloseLeaseRequest {
            context: None,
            namespace: self.namespace(),
            lease_id: lease,
        };
        Ok(self.client.write(request).await?.freed)
    }

    fn namespace(&self) -> String {
        self.client.namespace().to_owned()
    }
}

impl From<proto::Master> for Master {
    fn from(master: proto::Master) -> Master {
        Master {
            id: master.master_id,
            name: master.name,
            active: master.active,
            lease: (master.lease_id != 0).then_some(master.lease_id),
            lease_remaining: Duration::from_millis(master.lease_remaining_ms),
            last_active_unix_ms: master.last_active_unix_ms,
            claims: master.claims,
        }
    }
}
