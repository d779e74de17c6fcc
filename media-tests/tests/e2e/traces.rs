//! Traces as a collector gets them.

use anyhow::{Context, ensure};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;
use trocar_media_tests::stack::{PATIENCE, Stack};

/// A collector that keeps the bodies of what is posted to `/v1/traces`.
fn collector() -> anyhow::Result<(String, Receiver<Value>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let (told, bodies) = sync_channel(1_024);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten().take(16) {
            let Ok(body) = take(stream) else { continue };
            if told.send(body).is_err() {
                return;
            }
        }
    });
    Ok((endpoint, bodies))
}

fn take(mut stream: TcpStream) -> anyhow::Result<Value> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut came, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let n = stream.read(&mut buffer)?;
        came.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&came).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n").filter(|_| n > 0) else {
            ensure!(n > 0, "cut off: {text}");
            continue;
        };
        ensure!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        ensure!(head.to_ascii_lowercase().contains("content-type: application/json"), "{head}");
        let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() < length.context("no length")? {
            continue;
        }
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
        )?;
        return Ok(serde_json::from_str(body)?);
    }
}

#[test]
fn a_viewers_way_from_the_invitation_to_the_first_frame_is_one_trace() -> anyhow::Result<()> {
    let (endpoint, bodies) = collector()?;
    let stack = Stack::start_with(&format!("[traces]\nendpoint = \"{endpoint}\"\nservice_name = \"or-7\"\n"))?;
    let _publisher = stack.publish(&["--source", "test:320x240@30"])?;
    ensure!(bodies.try_recv().is_err(), "the control: nobody views yet");
    let _watch = stack.watch(&["--feed", "scope", "--transport", "webrtc"])?;
    let body = bodies.recv_timeout(PATIENCE)?;
    let text = body.to_string();
    ensure!(text.contains("or-7"), "{text}");
    let spans = body.pointer("/resourceSpans/0/scopeSpans/0/spans").and_then(Value::as_array).context("spans")?;
    let names: Vec<&str> = spans.iter().filter_map(|s| s["name"].as_str()).collect();
    ensure!(names == ["join", "redeem invitation", "negotiate", "connect", "first frame"], "{text}");
    let nanos = |s: &Value, key: &str| s[key].as_str().and_then(|t| t.parse::<u64>().ok()).context("no time");
    let (root, last) = (&spans[0], &spans[4]);
    ensure!(nanos(root, "endTimeUnixNano")? == nanos(last, "endTimeUnixNano")?, "{text}");
    for pair in spans[1..].windows(2) {
        ensure!(nanos(&pair[0], "endTimeUnixNano")? <= nanos(&pair[1], "startTimeUnixNano")?, "{text}");
    }
    let secret = stack.text("/tokens/observer")?;
    ensure!(!text.contains(&secret) && !text.contains("Operating room"), "no secret and no title: {text}");
    let sent = tokio::runtime::Runtime::new()?.block_on(stack.metric("trocar_signaling_traces_total"))?;
    ensure!(sent == 1.0, "{sent}");
    Ok(())
}
