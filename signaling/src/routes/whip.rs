//! WHIP (RFC 9725): a browser or an encoder publishes a picture and a sound with one POST, trickles candidates and
//! restarts ICE by PATCH, and hangs up with DELETE.

use super::offer::Offer;
use super::resource::{
    Created, SDP, SDP_FRAGMENT, check_if_match, created, endpoint_options, patched, resource_options,
};
use super::{PublicationPath, SessionPath, to_the_end};
use crate::app::{App, wall_clock};
use crate::guard::Caller;
use crate::input::{self, Names};
use crate::live::{Closing, PublicationOffer};
use crate::problem::{FIELD_INVALID, PURPOSE_ROLE, Refusal, refused_by_relay};
use crate::secret;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use std::sync::Arc;
use trocar_proto::session::admission::{AdmitError, FeedOutline, PublicationGrant};
use trocar_proto::session::feed::Purpose;
use trocar_proto::session::ids::{FeedId, ParticipantId, PublicationId, SessionId};
use trocar_proto::session::role::{Role, Verb};
use trocar_proto::units::Bitrate;

/// What others see of a participant that is known by an invitation alone.
const GUEST: &str = "WHIP client";
/// Bits per second where the address does not say.
const VIDEO_BITRATE: Bitrate = Bitrate(8_000_000);
const AUDIO_BITRATE: Bitrate = Bitrate(128_000);
/// The most that it may say: the relay keeps memory for what may come.
const MAX_VIDEO_BITRATE: Bitrate = Bitrate(100_000_000);
const MAX_AUDIO_BITRATE: Bitrate = Bitrate(512_000);

/// `POST /v1/sessions/{session}/whip`: SDP offer in, SDP answer and the resource's address out.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/whip", operation_id = "publishWhip", tag = "webrtc", params(SessionPath, Wish),
    request_body(content = String, content_type = "application/sdp", description = "SDP offer"), security(("token" = []), ("invitation" = [])),
    responses(
        (status = 201, description = "SDP answer", body = String, content_type = "application/sdp", headers(
            ("Location" = String, description = "Address of the resource"),
            ("ETag" = String, description = "The ICE session, for If-Match"),
            ("Accept-Patch" = String, description = "application/trickle-ice-sdpfrag"),
            ("Link" = String, description = "One for each URL of an ICE server, rel=\"ice-server\""),
        )),
        (status = 403, description = "purpose-role"),
        (status = 406, description = "not-acceptable"),
        (status = 409, description = "feed-exists"),
        (status = 422, description = "sdp-unprocessable"),
    )
)]
pub(super) async fn open(
    State(app): State<Arc<App>>,
    Names(path): Names<SessionPath>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let entry = caller.enter(&app, &path.session, Verb::Publish)?;
    let wish = Wish::of(request.uri())?;
    if wish.purpose == Some(Purpose::Scope) && !matches!(entry.role(), Role::Local | Role::Publisher) {
        // Everybody would be shown it as the picture of the operation.
        let detail = "scope is for the roles local and publisher, who have the endoscope: leave purpose out, or say room or secondary";
        return Err(Refusal::new(PURPOSE_ROLE, detail).field("purpose"));
    }
    let offer = input::text(&app, request, SDP).await?;
    let sends = {
        let looked = Offer::look(&offer)?;
        let (video, audio) = looked.sends()?;
        (video, audio, looked.layers())
    };
    to_the_end(async move {
        let owner = entry.participant(&app, GUEST).await?;
        let opened = publish(&app, path.session, (wish, sends), offer, owner.clone()).await;
        entry.settle(&app, &owner, &opened).await;
        created(&app, entry.realm(), opened?)
    })
    .await
}

/// `PATCH /v1/sessions/{session}/whip/{publication}`, as for a WHEP resource.
#[utoipa::path(
    patch, path = "/v1/sessions/{session}/whip/{publication}", operation_id = "patchWhip", tag = "webrtc",
    params(PublicationPath, ("If-Match" = Option<String>, Header, description = "The current entity tag, or * for an ICE restart")),
    request_body(content = String, content_type = "application/trickle-ice-sdpfrag", description = "SDP fragment (RFC 8840)"), security(("token" = []), ("invitation" = [])),
    responses(
        (status = 200, description = "The relay's fragment after an ICE restart", body = String,
         content_type = "application/trickle-ice-sdpfrag",
         headers(("ETag" = String, description = "The new ICE session"))),
        (status = 204, description = "Candidates taken"),
        (status = 404, description = "publication-missing"),
        (status = 412, description = "if-match-failed"),
        (status = 428, description = "if-match-missing"),
    )
)]
pub(super) async fn patch(
    State(app): State<Arc<App>>,
    Names(path): Names<PublicationPath>,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    let owner = caller.owner_of_publication(&app, &path.session, &path.publication)?;
    let current = app.live().publication_ice(&path.session, &path.publication, &owner)?;
    let precondition = request.headers().clone();
    let fragment = input::text(&app, request, SDP_FRAGMENT).await?;
    check_if_match(&precondition, &current)?;
    let restarted = to_the_end(async move {
        let answer = app.ask(app.admission.patch_publication(&path.publication, fragment)).await;
        let restarted = answer.map_err(|e| refused_by_relay(&e, "body"))?;
        if let Some((_, ice_session)) = &restarted {
            app.live().restart_publication(&path.session, &path.publication, ice_session.clone())?;
        }
        Ok(restarted)
    })
    .await?;
    patched(restarted)
}

/// `DELETE /v1/sessions/{session}/whip/{publication}`: hang up. The publisher's alone: to others it does not exist.
#[utoipa::path(
    delete, path = "/v1/sessions/{session}/whip/{publication}", operation_id = "endWhip", tag = "webrtc", params(PublicationPath), security(("token" = []), ("invitation" = [])),
    responses((status = 200, description = "Hung up"), (status = 404, description = "publication-missing"))
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Names(path): Names<PublicationPath>,
    caller: Caller,
) -> Result<StatusCode, Refusal> {
    let owner = caller.owner_of_publication(&app, &path.session, &path.publication)?;
    let closings = app.live().remove_publication(&path.session, &path.publication, &owner)?;
    to_the_end(async move {
        app.close(closings).await;
        caller.leave(&app, &path.session, &owner).await;
        Ok(())
    })
    .await?;
    Ok(StatusCode::OK)
}

/// `OPTIONS` of the endpoint.
#[utoipa::path(
    options, path = "/v1/sessions/{session}/whip", operation_id = "publishWhipOptions", tag = "webrtc", params(SessionPath),
    responses((status = 204, description = "What is taken here, and CORS by policy", headers(
        ("Allow" = String, description = "Methods"),
        ("Accept-Post" = String, description = "Media type"),
    )))
)]
pub(super) async fn endpoint(State(app): State<Arc<App>>, request: Request) -> Response {
    endpoint_options(&app, &request)
}

/// `OPTIONS` of a publication.
#[utoipa::path(
    options, path = "/v1/sessions/{session}/whip/{publication}", operation_id = "whipOptions", tag = "webrtc", params(PublicationPath),
    responses((status = 204, description = "What is taken here, and CORS by policy", headers(
        ("Allow" = String, description = "Methods"),
        ("Accept-Patch" = String, description = "Media type"),
    )))
)]
pub(super) async fn resource(request: Request) -> Response {
    resource_options(&request)
}

async fn publish(
    app: &App,
    session: SessionId,
    (wish, (video, audio, layers)): (Wish, (bool, bool, usize)),
    offer: String,
    owner: ParticipantId,
) -> Result<Created, Refusal> {
    let (of_video, of_audio) = wish.outlines(&owner, (video, audio))?;
    let layers = of_video.as_ref().map_or_else(Vec::new, |largest| smaller_layers(largest, layers));
    let publication = secret::publication_id()?;
    let location = format!("/v1/sessions/{session}/whip/{publication}");
    let (reserved, first) = app.live().reserve_publication(
        app.now(),
        wall_clock(),
        PublicationOffer { session, publisher: owner.clone(), publication, video: of_video, layers, audio: of_audio },
    )?;
    app.close(first).await;
    let (sdp, ice_session) = ask_relay(app, reserved, offer).await?;
    Ok(Created { sdp, ice_session, location, owner })
}

/// The feeds of a picture's smaller simulcast layers, the larger one first: half the size, then a quarter, each with half
/// the rate of the one before. Where the name leaves no room for the suffix, the layer is not taken.
fn smaller_layers(largest: &FeedOutline, layers: usize) -> Vec<FeedOutline> {
    let smaller = [("half", 1), ("quarter", 2)].into_iter().take(layers.saturating_sub(1));
    let outline = |(suffix, halvings): (&str, u32)| {
        let view = format!("{}-{suffix}", largest.view);
        let feed = FeedId::new(format!("{}-{suffix}", largest.feed)).ok()?;
        let max_bitrate = Bitrate((largest.max_bitrate.0 >> halvings).max(1_000));
        printable(view).map(|view| FeedOutline { feed, view, max_bitrate, ..largest.clone() })
    };
    smaller.map_while(outline).collect()
}

/// Opens a reserved publication at the relay. Whatever goes wrong, neither side keeps half of it.
async fn ask_relay(app: &App, grant: PublicationGrant, offer: String) -> Result<(String, String), Refusal> {
    let publication = grant.publication.clone();
    match app.ask(app.admission.open_publication(grant, offer)).await {
        Ok(answer) => {
            let committed = app.live().commit_publication(wall_clock(), &publication, &answer);
            if let Err(e) = committed {
                take_back(app, &publication).await;
                return Err(e.into());
            }
            Ok((answer.sdp, answer.ice_session))
        }
        // It may have been opened after the time was up.
        Err(e @ AdmitError::Unavailable) => {
            take_back(app, &publication).await;
            Err(refused_by_relay(&e, "body"))
        }
        Err(e) => {
            app.live().abandon_publication(&publication);
            Err(refused_by_relay(&e, "body"))
        }
    }
}

/// The names are free only once the relay has closed what it may have opened.
async fn take_back(app: &App, publication: &PublicationId) {
    app.close(vec![Closing::Publication(publication.clone())]).await;
    app.live().abandon_publication(publication);
}

/// What the address says about the feeds.
#[derive(Debug, Default, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Wish {
    /// Name of the video feed; `cam-` and the first 8 characters of the participant's id where left out.
    #[param(inline)]
    feed: Option<FeedId>,
    /// Name of the audio feed; that of the video feed with `-audio` where left out.
    #[param(inline)]
    audio_feed: Option<FeedId>,
    /// What the camera or microphone is; the name of the video feed where left out.
    #[param(min_length = 1, max_length = 64, pattern = "^[!-~]{1,64}$")]
    source: Option<String>,
    /// Which rendition; `overview` where left out.
    #[param(min_length = 1, max_length = 64, pattern = "^[!-~]{1,64}$")]
    view: Option<String>,
    /// `scope`, `room` or `secondary`; `room` where left out. The sound is always `voice`.
    #[param(value_type = Option<String>, pattern = "^(scope|room|secondary)$")]
    purpose: Option<Purpose>,
    /// Bits per second of the picture, 8000000 where left out; of a sound alone at most 512000, 128000 where left out.
    #[param(value_type = Option<u64>, minimum = 1_000, maximum = 100_000_000_i64)]
    max_bitrate: Option<Bitrate>,
    /// Capture to display, in milliseconds; 200 where left out.
    #[param(minimum = 1, maximum = 10_000)]
    budget_ms: Option<u32>,
    /// The publisher plays a recording.
    replay: Option<bool>,
}

impl Wish {
    /// Reads the query: each key at most once, no others.
    fn of(uri: &Uri) -> Result<Self, Refusal> {
        let bad = |key: &str, expected: &str| Refusal::new(FIELD_INVALID, expected).field(key);
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| bad("query", "KEY=VALUE pairs joined by &, percent-encoded UTF-8"))?;
        let mut wish = Self::default();
        for (key, value) in pairs.0 {
            let is_new = match key.as_str() {
                "feed" => put(&mut wish.feed, FeedId::new(value).ok()),
                "audio_feed" => put(&mut wish.audio_feed, FeedId::new(value).ok()),
                "source" => put(&mut wish.source, printable(value)),
                "view" => put(&mut wish.view, printable(value)),
                "purpose" => put(&mut wish.purpose, purpose(&value)),
                "max_bitrate" => put(&mut wish.max_bitrate, within(&value, 1_000, MAX_VIDEO_BITRATE.0).map(Bitrate)),
                "budget_ms" => {
                    put(&mut wish.budget_ms, within(&value, 1, 10_000).and_then(|ms| u32::try_from(ms).ok()))
                }
                "replay" => put(&mut wish.replay, value.parse().ok()),
                _ => {
                    return Err(bad(
                        &key,
                        "known keys are feed, audio_feed, source, view, purpose, max_bitrate, \
                                           budget_ms and replay",
                    ));
                }
            };
            if !is_new {
                return Err(bad(&key, expected(&key)));
            }
        }
        Ok(wish)
    }

    /// The feeds of the kinds that the offer sends.
    fn outlines(
        self,
        owner: &ParticipantId,
        (video, audio): (bool, bool),
    ) -> Result<(Option<FeedOutline>, Option<FeedOutline>), Refusal> {
        let named = |key: &str, name: String| {
            FeedId::new(name).map_err(|e| Refusal::new(FIELD_INVALID, e.to_string()).field(key))
        };
        let feed = match self.feed {
            Some(feed) => feed,
            None => named("feed", format!("cam-{}", owner.as_str().chars().take(8).collect::<String>()))?,
        };
        let audio_feed = match self.audio_feed {
            Some(feed) => Some(feed),
            None if audio => Some(named("audio_feed", format!("{feed}-audio"))?),
            None => None,
        };
        if audio_feed.as_ref() == Some(&feed) {
            return Err(Refusal::new(FIELD_INVALID, "another name than that of feed is right").field("audio_feed"));
        }
        let of_sound = match self.max_bitrate.filter(|_| !video) {
            Some(rate) if rate > MAX_AUDIO_BITRATE => {
                return Err(Refusal::new(FIELD_INVALID, expected("max_bitrate")).field("max_bitrate"));
            }
            given => given.unwrap_or(AUDIO_BITRATE),
        };
        let outline = FeedOutline {
            source: self.source.unwrap_or_else(|| feed.as_str().to_owned()),
            view: self.view.unwrap_or_else(|| "overview".to_owned()),
            purpose: self.purpose.unwrap_or(Purpose::Room),
            max_bitrate: self.max_bitrate.unwrap_or(VIDEO_BITRATE),
            budget_ms: self.budget_ms.unwrap_or(200),
            priority: 0,
            replay: self.replay.unwrap_or(false),
            feed,
        };
        let voice = audio_feed.filter(|_| audio).map(|feed| FeedOutline {
            feed,
            purpose: Purpose::Voice,
            max_bitrate: of_sound,
            ..outline.clone()
        });
        Ok((video.then_some(outline), voice))
    }
}

/// Whether there is a value and was none before.
fn put<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    value.is_some() && std::mem::replace(place, value).is_none()
}

/// What would have been right.
fn expected(key: &str) -> &'static str {
    match key {
        "feed" | "audio_feed" => "once, 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'",
        "source" | "view" => "once, 1 to 64 printable ASCII characters without spaces",
        "purpose" => "once, scope, room or secondary",
        "max_bitrate" => "once, 1000 to 100000000 bit/s, for a sound alone to 512000",
        "budget_ms" => "once, 1 to 10000 ms",
        _ => "once, true or false",
    }
}

fn printable(text: String) -> Option<String> {
    ((1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())).then_some(text)
}

fn within(text: &str, low: u64, high: u64) -> Option<u64> {
    // `parse` alone would take a sign.
    let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    number.filter(|n| (low..=high).contains(n))
}

fn purpose(text: &str) -> Option<Purpose> {
    match text {
        "scope" => Some(Purpose::Scope),
        "room" => Some(Purpose::Room),
        "secondary" => Some(Purpose::Secondary),
        _ => None,
    }
}
