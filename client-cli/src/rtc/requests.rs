//! Key frame requests for the source. The crate keeps feedback to itself unless an interceptor vouches for it; this one does
//! for those that only the source can answer.

use rtc::interceptor::{Attribute, Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::sansio::Protocol;
use std::collections::VecDeque;
use std::time::Instant;
use webrtc::peer_connection::Slot;

/// Behind all of the crate's own, which have acted on the feedback by then.
const LAST: usize = 14_000;

/// Passes packets on, in the order in which they come; each call is followed by a poll, so the queues stay short.
#[derive(Default)]
pub(super) struct Requests {
    inbound: VecDeque<TaggedPacket>,
    outbound: VecDeque<TaggedPacket>,
}

/// Where [`Requests`] stand in the chain.
pub(super) fn slot() -> Slot {
    Slot::from(LAST)
}

/// Whether this asks for a key frame (PLI, FIR: RFC 4585 section 6.3.1, RFC 5104 section 4.3.1).
pub(super) fn is_request(packet: &dyn rtc::rtcp::Packet) -> bool {
    packet.as_any().is::<PictureLossIndication>() || packet.as_any().is::<FullIntraRequest>()
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Requests {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = webrtc::error::Error;
    type Time = Instant;

    fn handle_read(&mut self, mut packet: TaggedPacket) -> Result<(), Self::Error> {
        if let Packet::Rtcp(parts) = &mut packet.message.packet
            && parts.iter().any(|p| is_request(p.as_ref()))
        {
            // The application finds its track by the first part.
            parts.retain(|p| is_request(p.as_ref()));
            packet.message.add(Attribute::DeliverToApplication);
        }
        self.inbound.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.inbound.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Self::Error> {
        self.outbound.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.outbound.pop_front()
    }
}

impl Interceptor for Requests {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}
