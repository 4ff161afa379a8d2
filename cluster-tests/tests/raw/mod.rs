//! The generated clients of one node, without a library between: what is sent is what was meant.
#![expect(unreachable_pub, reason = "a module of test programs")]

use std::collections::HashMap;

use anyhow::{Context as _, ensure};
use holdfast_cluster_tests::Cluster;
use holdfast_proto::v1;
use holdfast_proto::v1::change_sources_client::ChangeSourcesClient;
use holdfast_proto::v1::cluster_client::ClusterClient;
use holdfast_proto::v1::masters_client::MastersClient;
use holdfast_proto::v1::objects_client::ObjectsClient;
use holdfast_proto::v1::state_client::StateClient;
use holdfast_proto::v1::stm_client::StmClient;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The generated clients of one node, with a session.
pub struct Raw {
    pub state: StateClient<Channel>,
    pub masters: MastersClient<Channel>,
    pub sources: ChangeSourcesClient<Channel>,
    pub stm: StmClient<Channel>,
    pub objects: ObjectsClient<Channel>,
    pub cluster: ClusterClient<Channel>,
    pub session: u64,
    seq: u64,
    pub namespace: String,
}

/// What a node answered.
pub type Answer<T> = Result<T, Status>;

impl Raw {
    pub async fn on_leader_and_follower(cluster: &Cluster) -> anyhow::Result<Vec<Raw>> {
        let mut both = Vec::new();
        for index in [cluster.leader().await?, cluster.follower().await?] {
            let endpoint = format!("http://{}", cluster.endpoint(index));
            both.push(Raw::on(Channel::from_shared(endpoint)?.connect().await?).await?);
        }
        Ok(both)
    }

    /// The clients on one connection, with a new session.
    pub async fn on(channel: Channel) -> anyhow::Result<Raw> {
        let mut raw = Raw {
            state: StateClient::new(channel.clone()),
            masters: MastersClient::new(channel.clone()),
            sources: ChangeSourcesClient::new(channel.clone()),
            stm: StmClient::new(channel.clone()).max_decoding_message_size(16 << 20),
            objects: ObjectsClient::new(channel.clone()),
            cluster: ClusterClient::new(channel),
            session: 0,
            seq: 0,
            namespace: String::new(),
        };
        raw.open_session(0).await?;
        Ok(raw)
    }

    pub async fn open_session(&mut self, idle_ms: u64) -> Answer<()> {
        let opened = self.cluster.open_session(v1::OpenSessionRequest { idle_ms }).await?;
        (self.session, self.seq) = (opened.into_inner().session_id, 0);
        Ok(())
    }

    /// One write after the other: each says that all before it were answered.
    pub fn context(&mut self) -> Option<v1::WriteContext> {
        self.seq += 1;
        let (session_id, seq) = (self.session, self.seq);
        Some(v1::WriteContext { session_id, seq, first_incomplete: seq, resent: false })
    }

    /// The revision of the state, linearizable.
    pub async fn revision(&mut self) -> anyhow::Result<u64> {
        let answer = self.masters.list_masters(v1::ListMastersRequest::default()).await?;
        Ok(answer.into_inner().header.context("every response has a header")?.revision)
    }

    pub async fn object(&mut self, name: &str, class_name: &str) -> Answer<i64> {
        let (name, class_name) = (name.to_owned(), class_name.to_owned());
        let (context, namespace) = (self.context(), self.namespace.clone());
        let request =
            v1::GetObjectIdRequest { context, namespace, name, class_name, only_existing: false };
        Ok(self.state.get_object_id(request).await?.into_inner().object_id)
    }

    /// How many would create a value, told to one more who then leaves.
    pub async fn line_to_create(&mut self, object_id: i64, name: &str) -> anyhow::Result<u64> {
        let (context, namespace, name) = (self.context(), self.namespace.clone(), name.to_owned());
        let request = v1::AskToCreateRequest {
            context,
            namespace: namespace.clone(),
            object_id,
            name: name.clone(),
            ttl_ms: 0,
            wait_ms: 0,
        };
        let asked = self.state.ask_to_create(request).await?.into_inner().outcome;
        let Some(v1::ask_to_create_response::Outcome::Waiting(waiting)) = asked else {
            anyhow::bail!("nobody creates it: {asked:?}");
        };
        let (context, token) = (self.context(), waiting.token);
        let request = v1::AbandonCreatingRequest { context, namespace, object_id, name, token };
        self.state.abandon_creating(request).await?;
        Ok(waiting.ahead)
    }

    pub async fn set(&mut self, object: i64, name: &str, value: &[u8]) -> Answer<()> {
        let context = self.context();
        self.set_in(context, object, name, value).await
    }

    pub async fn set_in(
        &mut self,
        context: Option<v1::WriteContext>,
        object_id: i64,
        name: &str,
        value: &[u8],
    ) -> Answer<()> {
        let (name, value) = (name.to_owned(), value.to_vec());
        let request = v1::SetStateRequest { context, object_id, name, value, ..Default::default() };
        self.state.set_state(request).await.map(drop)
    }

    pub async fn set_fenced(
        &mut self,
        object_id: i64,
        name: &str,
        value: &[u8],
        fence: Option<v1::Fence>,
    ) -> Answer<()> {
        let (context, name, value) = (self.context(), name.to_owned(), value.to_vec());
        let request =
            v1::SetStateRequest { context, object_id, name, value, fence, ..Default::default() };
        self.state.set_state(request).await.map(drop)
    }

    pub async fn create(&mut self, object_id: i64, name: &str, value: &[u8]) -> Answer<bool> {
        let (context, name, value) = (self.context(), name.to_owned(), value.to_vec());
        let request =
            v1::CreateStateRequest { context, object_id, name, value, ..Default::default() };
        Ok(self.state.create_state(request).await?.into_inner().created)
    }

    pub async fn delete(&mut self, object_id: i64, name: &str) -> Answer<bool> {
        let (context, name) = (self.context(), name.to_owned());
        let request = v1::DeleteStateRequest { context, object_id, name, ..Default::default() };
        Ok(self.state.delete_state(request).await?.into_inner().deleted)
    }

    pub async fn get(&mut self, object_id: i64, name: &str) -> Answer<v1::GetStateResponse> {
        let name = name.to_owned();
        let request = v1::GetStateRequest { object_id, name, ..Default::default() };
        Ok(self.state.get_state(request).await?.into_inner())
    }

    pub async fn list(&mut self, object_id: i64) -> Answer<v1::ListStateResponse> {
        let request = v1::ListStateRequest { object_id, ..Default::default() };
        Ok(self.state.list_state(request).await?.into_inner())
    }

    pub async fn master(&mut self, name: &str) -> Answer<i64> {
        let (context, name) = (self.context(), name.to_owned());
        let namespace = self.namespace.clone();
        let request = v1::FindMasterIdRequest { context, namespace, name };
        Ok(self.masters.find_master_id(request).await?.into_inner().master_id)
    }

    pub async fn set_master_state(&mut self, master_id: i64) -> Answer<bool> {
        let context = self.context();
        let request =
            v1::SetMasterStateRequest { context, master_id, active: true, ..Default::default() };
        Ok(self.masters.set_master_state(request).await?.into_inner().changed)
    }

    pub async fn lease(&mut self, name: &str, ttl_ms: u64) -> Answer<u64> {
        let (context, name) = (self.context(), name.to_owned());
        let (namespace, instance) = (self.namespace.clone(), vec![7; 32]);
        let request =
            v1::OpenLeaseRequest { context, namespace, name, instance, ttl_ms, grace_ms: 0 };
        match self.masters.open_lease(request).await?.into_inner().outcome {
            Some(v1::open_lease_response::Outcome::Lease(lease)) => Ok(lease.lease_id),
            held => panic!("it is our own lease: {held:?}"),
        }
    }

    pub async fn source(&mut self, name: &str) -> Answer<i64> {
        let (context, name) = (self.context(), name.to_owned());
        let namespace = self.namespace.clone();
        let request = v1::FindChangeSourceIdRequest { context, namespace, name };
        Ok(self.sources.find_change_source_id(request).await?.into_inner().changesource_id)
    }

    pub async fn claim_for(&mut self, changesource_id: i64, master: i64) -> Answer<()> {
        let context = self.context();
        let request = v1::SetChangeSourceMasterRequest {
            context,
            changesource_id,
            master_id: Some(master),
            ..Default::default()
        };
        self.sources.set_change_source_master(request).await.map(drop)
    }

    pub async fn claim(&mut self, changesource_id: i64, lease_id: u64) -> Answer<u64> {
        let context = self.context();
        let request = v1::ClaimRequest { context, changesource_id, lease_id, ..Default::default() };
        match self.sources.claim(request).await?.into_inner().outcome {
            Some(v1::claim_response::Outcome::Token(token)) => Ok(token),
            held => panic!("nobody else claims it: {held:?}"),
        }
    }

    pub async fn set_group(&mut self, changesource_id: i64, group: &str) -> Answer<bool> {
        let (context, group) = (self.context(), Some(group.to_owned()));
        let request = v1::SetGroupRequest { context, changesource_id, group, ..Default::default() };
        Ok(self.sources.set_group(request).await?.into_inner().changed)
    }

    /// Compares and writes some variables.
    pub async fn commit(
        &mut self,
        comparisons: Vec<v1::Comparison>,
        writes: Vec<v1::VariableWrite>,
    ) -> Answer<v1::CommitResponse> {
        let context = self.context();
        self.commit_in(context, comparisons, writes).await
    }

    pub async fn commit_in(
        &mut self,
        context: Option<v1::WriteContext>,
        comparisons: Vec<v1::Comparison>,
        writes: Vec<v1::VariableWrite>,
    ) -> Answer<v1::CommitResponse> {
        let namespace = self.namespace.clone();
        let request = v1::CommitRequest { context, namespace, comparisons, writes };
        Ok(self.stm.commit(request).await?.into_inner())
    }

    /// Some variables at one revision.
    pub async fn variables(&mut self, keys: &[&[u8]]) -> Answer<v1::GetVariablesResponse> {
        let (namespace, keys) = (self.namespace.clone(), keys.iter().map(|key| key.to_vec()));
        let keys = keys.collect();
        let request = v1::GetVariablesRequest { namespace, keys, read: None, only_versions: false };
        Ok(self.stm.get_variables(request).await?.into_inner())
    }

    pub async fn release(&mut self, changesource_id: i64, token: u64) -> Answer<bool> {
        let context = self.context();
        let request = v1::ReleaseRequest { context, changesource_id, token, ..Default::default() };
        Ok(self.sources.release(request).await?.into_inner().released)
    }
}

/// Whether a node refused it for that reason, as definitely not applied, naming these fields.
pub fn refused<T>(
    answer: Result<T, Status>,
    code: Code,
    reason: &str,
    fields: &[(&str, &str)],
) -> anyhow::Result<()> {
    let status = answer.err().with_context(|| format!("{reason}: it was carried out"))?;
    let details = status.get_details_error_info();
    let info = details.with_context(|| format!("{reason}: no details: {status:?}"))?;
    let metadata: HashMap<String, String> = info.metadata;
    let said = format!("{} {:?} {metadata:?}", info.reason, status.message());
    ensure!(info.reason == reason && status.code() == code, "{reason}: {:?} {said}", status.code());
    ensure!(info.domain == "holdfast", "{reason}: domain {}", info.domain);
    ensure!(!status.message().is_empty(), "{reason}: no message");
    ensure!(metadata.get("applied").is_some_and(|applied| applied == "no"), "{reason}: {said}");
    for (field, value) in fields {
        let found = metadata.get(*field).map(String::as_str);
        ensure!(found == Some(*value), "{reason}: {field} is not {value}: {said}");
    }
    Ok(())
}
