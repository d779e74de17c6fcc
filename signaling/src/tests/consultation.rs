//! Voices, chat, and where people work.

use super::serving::Running;
use super::sockets::Socket;
use super::whip::SDP;
use super::*;
use trocar_proto::session::event::VoiceSlot;
use trocar_proto::session::ids::FeedId;

const OFFER: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=recvonly\r\n";

#[tokio::test]
async fn a_listener_is_told_whom_it_hears_where() {
    let world = World::new().await;
    let (one, two) = (world.join(Role::Expert).await, world.join(Role::Observer).await);
    let attach =
        |grant: &TokenGrant| world.app.live().attach(wall_clock(), &world.session, &grant.participant).unwrap();
    let (mut mine, mut others) = (attach(&one), attach(&two));
    let path = world.path("/voices/whep");
    let reply = world.ask(Method::POST, &path, Some(&one.token), &[SDP], OFFER).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    assert_eq!(world.relay.asked(), [format!("open_voices {}", world.session)]);
    let leg = LegId::new(reply.header("location").rsplit('/').next().unwrap()).unwrap();
    let feed = FeedId::new("talk").unwrap();
    let slots =
        vec![VoiceSlot { mid: "0".into(), feed: Some(feed.clone()) }, VoiceSlot { mid: "1".into(), feed: None }];
    world.app.live().handle_voices(&leg, slots);
    world.app.live().handle_speaking(&world.session, vec![feed]);
    let last_two = |outbound: &mut crate::live::Outbound| {
        let mut all = Vec::new();
        while let Ok(text) = outbound.queue.try_recv() {
            all.push(serde_json::from_str::<Value>(&text).unwrap());
        }
        all.split_off(all.len() - 2)
    };
    let voices =
        json!({"type": "voices", "leg": leg, "slots": [{"mid": "0", "feed": "talk"}, {"mid": "1", "feed": null}]});
    let speaking = json!({"type": "speaking", "feeds": ["talk"]});
    assert_eq!(last_two(&mut mine), [voices, speaking.clone()]);
    let others = last_two(&mut others);
    assert_ne!(others[0]["type"], "voices", "whom somebody hears is nobody else's business");
    assert_eq!(others[1], speaking);
    assert_eq!(world.delete(reply.header("location"), &one.token).await.status, 200);
    assert_eq!(world.relay.asked().last().unwrap(), &format!("close_leg {leg}"));
}

#[tokio::test]
async fn whoever_comes_while_somebody_speaks_is_told_who_it_is() {
    let world = World::new().await;
    let cnf = Some(CertHash([7; 32]));
    let (one, two) = (world.join_with(Role::Local, cnf).await, world.join(Role::Observer).await);
    let published = world.publish(&one.token, "talk").await;
    assert_eq!(published.status, 201, "{}", published.text);
    let kinds = |grant: &TokenGrant| {
        let mut outbound = world.app.live().attach(wall_clock(), &world.session, &grant.participant).unwrap();
        let texts = std::iter::from_fn(|| outbound.queue.try_recv().ok());
        texts.map(|text| serde_json::from_str::<Value>(&text).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&two).len(), 1, "the control: nobody speaks");
    world.app.live().handle_speaking(&world.session, vec![FeedId::new("gone").unwrap(), FeedId::new("talk").unwrap()]);
    let seen = kinds(&two);
    assert_eq!(seen[0]["type"], "welcome");
    assert_eq!(seen[1..], [json!({"type": "speaking", "feeds": ["talk"]})], "and no voice that has gone");
    world.app.live().handle_speaking(&world.session, Vec::new());
    assert_eq!(kinds(&two).len(), 1, "nobody speaks any more");
}

#[tokio::test]
async fn what_is_written_goes_to_all_and_to_those_who_come_later() {
    let world = Running::new().await;
    let (one, two) = (world.join(Role::Local).await, world.join(Role::Observer).await);
    let (mut first, welcome) = Socket::open(&world, &one).await;
    assert_eq!(welcome["chat"], json!([]));
    first.say(&json!({"type": "chat", "text": "  Is the light all right?\r\nToo bright?  "})).await;
    let said = first.next_of("chat").await;
    let message = &said["message"];
    assert_eq!((&message["id"], &message["participant"]), (&json!(1), &json!(one.participant)));
    assert_eq!((&message["name"], &message["text"]), (&json!("local"), &json!("Is the light all right?\nToo bright?")));
    let (mut second, welcome) = Socket::open(&world, &two).await;
    assert_eq!(welcome["chat"], json!([message]));
    second.say(&json!({"type": "chat", "text": "Good."})).await;
    assert_eq!(first.next_of("chat").await["message"]["text"], "Good.");
    assert_eq!(second.next_of("chat").await["message"]["id"], 2);
}

#[tokio::test]
async fn chat_that_cannot_be_shown_or_floods_ends_the_socket() {
    let world = Running::with(|c| c.limits.socket_messages = crate::Rate { burst: 5, per_second: 1 }).await;
    let grant = world.join(Role::Local).await;
    for bad in ["".to_owned(), " \n".to_owned(), "a\u{1b}b".to_owned(), "x".repeat(2_001)] {
        let (mut socket, _) = Socket::open(&world, &grant).await;
        socket.say(&json!({"type": "chat", "text": bad})).await;
        assert_eq!(socket.closed().await, 1008);
    }
    let (mut socket, _) = Socket::open(&world, &grant).await;
    for _ in 0..7 {
        socket.say(&json!({"type": "chat", "text": "hello"})).await;
    }
    assert_eq!(socket.closed().await, 1008);
}

#[tokio::test]
async fn a_chat_flood_is_refused_to_its_writer_alone_over_all_its_sockets() {
    let world = Running::with(|c| c.limits.chat = crate::Rate { burst: 3, per_second: 1 }).await;
    let (one, two) = (world.join(Role::Local).await, world.join(Role::Observer).await);
    let (mut first, _) = Socket::open(&world, &one).await;
    let (mut second, _) = Socket::open(&world, &one).await;
    let (mut other, _) = Socket::open(&world, &two).await;
    for (writes, text) in [(&mut first, "a"), (&mut second, "b")] {
        writes.say(&json!({"type": "chat", "text": text})).await;
        assert_eq!(other.next_of("chat").await["message"]["text"], text);
    }
    first.say(&json!({"type": "chat", "text": "c"})).await;
    assert_eq!(other.next_of("chat").await["message"]["text"], "c");
    // The second socket is refused what the first has used up.
    second.say(&json!({"type": "chat", "text": "d"})).await;
    let refused = second.next_of("refused").await;
    assert_eq!(refused["what"], "chat");
    assert!(refused["detail"].as_str().unwrap().contains("1 s"), "{refused}");
    // The socket stays, and others are not held up, nor told.
    other.say(&json!({"type": "chat", "text": "e"})).await;
    for (socket, heard) in [(&mut first, 3), (&mut second, 3), (&mut other, 0)] {
        let mut texts = Vec::new();
        while texts.last().is_none_or(|text| text != "e") {
            let event = socket.next_of_any(&["chat", "refused"]).await;
            assert_eq!(event["type"], "chat", "{event}");
            texts.push(event["message"]["text"].clone());
        }
        assert!(texts.len() <= heard + 1, "{texts:?}");
        assert!(!texts.iter().any(|text| text == "d"));
    }
}

#[tokio::test]
async fn the_largest_welcome_fits() {
    let world = Running::with(|c| c.limits.chat = crate::Rate { burst: 100, per_second: 100 }).await;
    let grant = world.join(Role::Local).await;
    let (mut socket, _) = Socket::open(&world, &grant).await;
    // Each of these characters takes two bytes in JSON.
    let text = "\"\n".repeat(999) + "\"x";
    for id in 1..=55 {
        socket.say(&json!({"type": "chat", "text": text})).await;
        assert_eq!(socket.next_of("chat").await["message"]["id"], id);
    }
    let (_, welcome) = Socket::open(&world, &grant).await;
    assert!(welcome["chat"].as_array().unwrap().len() >= 48);
}

#[tokio::test]
async fn where_somebody_works_is_shown_and_cleaned_as_a_name_is() {
    let world = World::new().await;
    let invitation = world.app.invite(&world.session, Role::Expert, 3600, None).await.unwrap().invitation;
    let join = async |organisation: &str| {
        let body = json!({"invitation": invitation, "name": "Ada", "organisation": organisation});
        world.post("/v1/join", None, &body).await
    };
    for bad in ["", "a\nb", "\u{202e}x", &"x".repeat(65)] {
        join(bad).await.assert_problem(400, "field-invalid", "organisation");
    }
    let grant: TokenGrant = serde_json::from_str(&join(" 北病院 ").await.text).unwrap();
    let _socket = world.app.live().attach(wall_clock(), &world.session, &grant.participant).unwrap();
    let people = world.get(&world.path(""), &grant.token).await.json()["participants"].clone();
    assert_eq!((&people[0]["name"], &people[0]["organisation"]), (&json!("Ada"), &json!("北病院")));
}
