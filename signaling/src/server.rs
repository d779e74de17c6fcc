//! Putting it together: listeners, tasks, and the handle for the process that signaling runs in.

mod renewal;

use crate::accept::{Door, Gatekeeper};
use crate::admission::Admission;
use crate::app::App;
use crate::audit::{Exporter, Offset, Signer, keep_for, tell, watch_offset};
use crate::config::{Config, ConfigError, Limits, StoreAt, origin_of};
use crate::consent::Notary;
use crate::control::{self, Dialer, RelayDialer};
use crate::error::SessionError;
use crate::identity::OpenError;
use crate::live::{CapturePoint, Closing};
use crate::realms::{CameBy, RealmDoor};
use crate::routes::{admin_router, router};
use crate::store::{Store, StoreError};
use crate::tls::{TlsError, server_config};
use crate::token::TokenKeyError;
use crate::traces::{Exporter as TraceExporter, Traces};
use crate::webhooks::Hooks;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::api::Invitation;
use trocar_proto::session::ids::{CertHash, ParticipantId, RealmId, SessionId};
use trocar_proto::session::role::Role;

/// Why signaling could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A value of the configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The TLS identity cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The token key cannot be used.
    #[error(transparent)]
    TokenKey(#[from] TokenKeyError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The identity or the trust list for the control rendezvous cannot be used.
    #[error("control: {0}")]
    Control(String),
    /// The trust list of those who sign consent cannot be used.
    #[error("consent.trust: {0}")]
    ConsentTrust(trocar_control::trust::TrustError),
    /// The accounts in the store cannot be used.
    #[error("accounts: {0}")]
    Accounts(StoreError),
    /// An address cannot be listened on.
    #[error("{addr}: cannot listen: {source}")]
    Listen {
        /// Which.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl StartError {
    fn of_app(error: OpenError) -> Self {
        match error {
            OpenError::Config(e) => Self::Config(e),
            OpenError::Key(e) => Self::TokenKey(e),
            OpenError::Store(e) => Self::Accounts(e),
        }
    }
}

/// Whether a station's token is good for that session and certificate; the error says why not.
pub type TokenCheck = Arc<dyn Fn(&str, &SessionId, CertHash) -> Result<(), String> + Send + Sync>;

/// The signaling server.
pub struct Server;

impl Server {
    /// Starts signaling: opens the store, binds, spawns the tasks on the current tokio runtime. `events` is what the relay
    /// has to say; its sender chooses the bound and drops capture points first when it is full.
    ///
    /// # Errors
    /// [`StartError`] names the value, file or address at fault. Nothing is left running.
    pub async fn start(
        config: Config,
        admission: Arc<dyn Admission>,
        events: mpsc::Receiver<RelayEvent>,
    ) -> Result<ServerHandle, StartError> {
        let dialer = config.control.clone().map(RelayDialer::new).transpose().map_err(StartError::Control)?;
        let dialer = dialer.map(|d| Arc::new(d) as Arc<dyn Dialer>);
        Self::start_with(config, admission, events, dialer).await
    }

    /// The same with another way to gates.
    pub(crate) async fn start_with(
        config: Config,
        admission: Arc<dyn Admission>,
        mut events: mpsc::Receiver<RelayEvent>,
        dialer: Option<Arc<dyn Dialer>>,
    ) -> Result<ServerHandle, StartError> {
        config.check()?;
        let tls12 = config.tls12;
        let (show, tls) = watch::channel(server_config(&config.tls, tls12)?);
        let (listener, https) = bind(config.listen).await?;
        let loopback = match config.loopback_http {
            Some(addr) => Some(bind(addr).await?),
            None => None,
        };
        let http = loopback.as_ref().map(|(_, addr)| *addr);
        let admin = match config.admin_listen {
            Some(addr) => Some(bind(addr).await?),
            None => None,
        };
        let foreign = bind_realms(&config.realms, tls12).await?;
        let signer = config.audit_key_pkcs8.as_deref().map(Signer::new).transpose()?;
        let offset = Offset::default();
        let store = Store::open(&config.store, crate::app::wall_clock(), signer, offset.clone())?;
        let mut names = public_names(&config, https, http);
        names.1.extend(foreign.iter().flat_map(Foreign::origins));
        let (hooks, couriers) = Hooks::open(&config.webhooks)?;
        let notary = config.consent_trust.as_deref().map(Notary::open).transpose().map_err(StartError::ConsentTrust)?;
        let app = Arc::new(App::new(&config, admission, store, names, (hooks, notary)).map_err(StartError::of_app)?);
        let exporter = traces(&app, &config)?;
        app.record_start(&config).await?;
        // What a relay has kept is known before the first client asks for it.
        while let Ok(event) = events.try_recv() {
            hear(&app, event);
        }

        let (close, closing) = watch::channel(false);
        let keeper = Gatekeeper::new(&app.limits);
        let routes = router(app.clone(), admin.is_none());
        let door = Door { app: app.clone(), router: routes, keeper, tls: Some(tls), came_by: None, closing };
        let mut tasks = JoinSet::new();
        if let Some((listener, _)) = loopback {
            tasks.spawn(Door { tls: None, ..door.clone() }.serve(listener));
        }
        let admin_addr = admin.as_ref().map(|(_, addr)| *addr);
        if let Some((listener, addr)) = admin {
            let tls = door.tls.clone().filter(|_| !addr.ip().is_loopback());
            tasks.spawn(Door { tls, router: admin_router(app.clone()), ..door.clone() }.serve(listener));
        }
        let mut keepers = vec![door.keeper.clone()];
        let realms: Vec<_> = foreign.into_iter().map(|f| f.serve(&door, &mut keepers, &mut tasks)).collect();
        tasks.spawn(door.serve(listener));
        tasks.spawn(hear_relay(app.clone(), events));
        tasks.spawn(sweep(app.clone()));
        tasks.spawn(watch_offset(offset, app.figures.clone()));
        keep_the_chain(&mut tasks, &app, &config);
        if let Some(exporter) = exporter {
            tasks.spawn(exporter.run(app.figures.clone()));
        }
        if let Some(dialer) = dialer {
            tasks.spawn(control::manage(app.clone(), dialer));
        }
        for courier in couriers {
            tasks.spawn(courier.run(app.figures.clone()));
        }
        Ok(ServerHandle { app, https, http, admin: admin_addr, realms, tls: show, tls12, close, keepers, tasks })
    }
}

/// The running listener for another realm, and what whoever connects now is shown.
struct RealmPlace {
    realm: RealmId,
    addr: SocketAddr,
    tls: watch::Sender<Arc<rustls::ServerConfig>>,
}

/// A running signaling server. Dropping it ends the tasks without a goodbye.
pub struct ServerHandle {
    app: Arc<App>,
    https: SocketAddr,
    http: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    realms: Vec<RealmPlace>,
    tls: watch::Sender<Arc<rustls::ServerConfig>>,
    tls12: bool,
    close: watch::Sender<bool>,
    keepers: Vec<Arc<Gatekeeper>>,
    tasks: JoinSet<()>,
}

impl ServerHandle {
    /// Where the TLS listener is.
    #[must_use]
    pub fn https_addr(&self) -> SocketAddr {
        self.https
    }

    /// Where the plain loopback listener is, if there is one.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Where the listeners for people of other realms are.
    #[must_use]
    pub fn realm_addrs(&self) -> Vec<(RealmId, SocketAddr)> {
        self.realms.iter().map(|r| (r.realm.clone(), r.addr)).collect()
    }

    /// Base of links, without a slash at the end.
    #[must_use]
    pub fn public_url(&self) -> &str {
        &self.app.public_url
    }

    /// What a relay asks about the token that a station shows it: signature, times, session, role expert, the certificate that it is
    /// bound to, and whether its bearer is still in the session. Quick; good for as long as the server runs.
    #[must_use]
    pub fn token_check(&self) -> TokenCheck {
        let app = Arc::downgrade(&self.app);
        Arc::new(move |token, session, certificate| {
            let app = app.upgrade().ok_or("signaling is going away")?;
            app.check_station(token, session, certificate)
        })
    }

    /// Opens a session. `title` is for people: 1 to 128 characters; `patient` is whom it is about, as `ASSIGNER|VALUE`, and stands in
    /// the audit chain alone.
    ///
    /// # Errors
    /// [`SessionError`] where one of them cannot be shown, a limit is reached or the store refuses.
    pub async fn create_session(&self, title: &str, patient: Option<&str>) -> Result<SessionId, SessionError> {
        self.app.create_session_about(title, patient).await
    }

    /// Writes an invitation that is good for `ttl`, 60 s to 7 days.
    ///
    /// # Errors
    /// [`SessionError`] where the session is closed, `ttl` is out of range, a limit is reached or the store refuses.
    pub async fn invite(&self, session: &SessionId, role: Role, ttl: Duration) -> Result<Invitation, SessionError> {
        self.app.invite(session, role, ttl.as_secs(), None).await
    }

    /// Removes a participant: its tokens are refused, its sockets, feeds and legs end.
    ///
    /// # Errors
    /// [`SessionError`] where session or participant are gone already or the store refuses.
    pub async fn remove_participant(&self, session: &SessionId, who: &ParticipantId) -> Result<(), SessionError> {
        self.app.remove_participant(session, who, None).await
    }

    /// Closes a session for good.
    ///
    /// # Errors
    /// [`SessionError`] where it is closed already or the store refuses.
    pub async fn close_session(&self, session: &SessionId) -> Result<(), SessionError> {
        self.app.close_session(session, None).await
    }

    /// Stops: no new connections, goodbye on the event sockets, then at most [`Limits::shutdown_timeout`] for what is
    /// under way, and the store is closed. Feeds and legs stay open at the relay.
    pub async fn shutdown(mut self) {
        let limits: Limits = self.app.limits.clone();
        self.app.live().say_goodbye("the server is shutting down");
        // Nobody is left to receive only where all tasks have ended already.
        let _ = self.close.send(true);
        if timeout(limits.shutdown_timeout, drained(&self.keepers, &limits)).await.is_err() {
            tracing::warn!("connections were still open at the end of the shutdown time");
        }
        self.tasks.shutdown().await;
        self.app.record_stop().await;
        self.app.store.stop().await;
    }
}

async fn drained(keepers: &[Arc<Gatekeeper>], limits: &Limits) {
    for keeper in keepers {
        keeper.drained(limits).await;
    }
}

/// Has joins and handovers traced, where that was configured.
fn traces(app: &App, config: &Config) -> Result<Option<TraceExporter>, ConfigError> {
    let Some(traces) = &config.traces else { return Ok(None) };
    traces.check()?;
    let (told, queue) = Traces::new(app.figures.clone());
    let exporter = TraceExporter::new(traces, queue).ok_or(ConfigError {
        field: "traces.endpoint",
        expected: "a system with a list of certificate authorities that can be read",
    })?;
    app.live().trace_with(told);
    Ok(Some(exporter))
}

/// Sends audit records to their repository and removes those whose time is over, where that was configured; takes what came of gates' chains.
fn keep_the_chain(tasks: &mut JoinSet<()>, app: &App, config: &Config) {
    if let Some(exporter) = Exporter::new(config, app.store.clone(), app.figures.clone()) {
        tasks.spawn(exporter.run());
    }
    let StoreAt::File(path) = &config.store else { return };
    tasks.spawn(tell(path.clone(), app.store.clone(), app.figures.clone()));
    if !config.audit_retention.is_forever() {
        let exported = config.audit_export.is_some();
        tasks.spawn(keep_for(config.audit_retention, path.clone(), exported, app.store.clone()));
    }
}

/// A listener for people of another realm, bound but not served.
struct Foreign<'a> {
    door: &'a RealmDoor,
    listener: TcpListener,
    addr: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
}

impl Foreign<'_> {
    /// Of its page, by each address that clients have for it.
    fn origins(&self) -> impl Iterator<Item = String> {
        let all = self.door.advertise.iter().copied().chain([self.addr.ip()]);
        all.filter_map(|ip| origin_of(&format!("https://{}", SocketAddr::new(ip, self.addr.port()))))
    }

    /// Lets people in as `own` does, and as of its realm. It has its own places: one realm that is flooded leaves the others theirs, and
    /// their addresses may be the same.
    fn serve(self, own: &Door, keepers: &mut Vec<Arc<Gatekeeper>>, tasks: &mut JoinSet<()>) -> RealmPlace {
        let Self { door, listener, addr, tls } = self;
        let realm = door.realm.clone();
        let (show, tls) = watch::channel(tls);
        let (came_by, keeper) = (Some(CameBy(Arc::new(realm.clone()))), Gatekeeper::new(&own.app.limits));
        keepers.push(keeper.clone());
        tasks.spawn(Door { came_by, keeper, tls: Some(tls), ..own.clone() }.serve(listener));
        RealmPlace { realm, addr, tls: show }
    }
}

async fn bind_realms(doors: &[RealmDoor], tls12: bool) -> Result<Vec<Foreign<'_>>, StartError> {
    let mut bound = Vec::new();
    for door in doors {
        let tls = server_config(&door.tls, tls12)?;
        let (listener, addr) = bind(door.listen).await?;
        bound.push(Foreign { door, listener, addr, tls });
    }
    Ok(bound)
}

async fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listen = |source| StartError::Listen { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    Ok((listener, bound))
}

/// The base of links and the origins whose pages may open event sockets: what was configured, and on loopback listeners
/// the names that browsers know loopback by.
fn public_names(config: &Config, https: SocketAddr, http: Option<SocketAddr>) -> (String, Vec<String>) {
    let base = match (&config.public_url, http) {
        (Some(url), _) => url.trim_end_matches('/').to_owned(),
        (None, Some(http)) => format!("http://{http}"),
        (None, None) => format!("https://{https}"),
    };
    let mut origins: Vec<String> = origin_of(&base).into_iter().chain(config.origins.iter().cloned()).collect();
    origins.extend(origin_of(&format!("https://{https}")));
    let listeners = [Some(("https", https)), http.map(|addr| ("http", addr))];
    for (scheme, addr) in listeners.into_iter().flatten().filter(|(_, addr)| is_local(*addr)) {
        let port = addr.port();
        let names = ["localhost", "127.0.0.1", "[::1]"];
        origins.extend(names.iter().filter_map(|name| origin_of(&format!("{scheme}://{name}:{port}"))));
    }
    (base, origins)
}

/// Whether the listener can be reached by a loopback name.
fn is_local(addr: SocketAddr) -> bool {
    addr.ip().is_loopback() || addr.ip().is_unspecified()
}

/// Takes the relay's events to whom they concern.
async fn hear_relay(app: Arc<App>, mut events: mpsc::Receiver<RelayEvent>) {
    while let Some(event) = events.recv().await {
        hear(&app, event);
    }
    tracing::info!("the relay has nothing more to say");
}

/// One event. What the relay is to close for it is closed beside: the next event does not wait for that.
pub(crate) fn hear(app: &Arc<App>, event: RelayEvent) {
    let mut live = app.live();
    let mut closings = Vec::new();
    match event {
        RelayEvent::FeedState { key, state, since } => live.handle_feed_state(&key, state, since),
        RelayEvent::Leg { leg, state } => live.handle_leg_state(&leg, state),
        RelayEvent::Capture { leg, feed, rtp, clock_rate, capture, received } => {
            live.handle_capture(&leg, &feed.feed, CapturePoint { rtp, clock_rate, capture, received });
        }
        RelayEvent::Paths { key, paths } => live.handle_paths(&key, paths),
        RelayEvent::Publication { publication, state } => live.handle_publication_state(&publication, state),
        RelayEvent::Descriptor { key, descriptor } => live.handle_descriptor(&key, descriptor),
        RelayEvent::Switched { leg, feed } => live.handle_switched(&leg, feed.feed),
        RelayEvent::Voices { leg, slots } => live.handle_voices(&leg, slots),
        RelayEvent::Speaking { session, feeds } => live.handle_speaking(&session, feeds),
        RelayEvent::FeedClosed { key } => {
            closings = live.remove_feed(&key).unwrap_or_default();
            // The relay has ended it. Its publisher knows by now and announces it anew: to close the name now would be to
            // close that one.
            closings.retain(|c| !matches!(c, Closing::Feed(closed) if *closed == key));
        }
        RelayEvent::State(state) => closings = live.adopt(crate::app::wall_clock(), *state),
        RelayEvent::Certificates { news, detail } => app.note_certificates(news, &detail),
        // Known to whoever keeps several relays.
        RelayEvent::CascadeClosed { .. } | RelayEvent::Operated { .. } => {}
    }
    drop(live);
    if !closings.is_empty() {
        let app = Arc::clone(app);
        tokio::spawn(async move { app.close(closings).await });
    }
}

async fn sweep(app: Arc<App>) {
    let mut ticks = interval(app.sweep_every());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        app.sweep().await;
    }
}
