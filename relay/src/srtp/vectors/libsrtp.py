"""Makes libsrtp.txt: packets that libsrtp (by `pip install pylibsrtp`) sealed, for each profile, in both keys of a session.

Sealing is a function of key, SSRC, index and packet, so equal bytes prove both directions: what we seal libsrtp opens, and
the other way round. Each line: profile, whose key, rtp or rtcp, index, plain packet, sealed packet.

    python3 relay/src/srtp/vectors/libsrtp.py > relay/src/srtp/vectors/libsrtp.txt
"""

from pylibsrtp import Policy, Session

MATERIAL = bytes(range(120))
PROFILES = [
    ("gcm128", Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12),
    ("gcm256", Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 32, 12),
    ("cm-sha1-80", Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14),
]
# Over two roll-overs, out of order at the first, with packets missing on both sides of each wrap; each step is below 2^15.
INDEXES = [65_000, 65_534, 65_535, 65_536, 65_533, 65_600, 98_000, 130_000, 131_070, 131_073, 131_071, 131_072]


def rtp(index):
    """With one CSRC and a header extension, and a payload whose length goes through everything up to 200 bytes."""
    head = bytes([0x91, 0xE0]) + (index & 0xFFFF).to_bytes(2, "big") + bytes([0, 1, 2, 3, 0, 0, 0, 7, 0, 0, 0, 9])
    return head + bytes([0xBE, 0xDE, 0, 1, 0x10, 0xAA, 0, 0]) + bytes(i & 0xFF for i in range(index % 200))


def rtcp(number):
    """A receiver report, then a goodbye."""
    ssrc = (7).to_bytes(4, "big")
    return bytes([0x80, 201, 0, 1]) + ssrc + bytes([0x81, 203, 0, 1]) + ssrc + bytes([0x80, 201, 0, 1]) * number


def main():
    for name, profile, key_len, salt_len in PROFILES:
        for place, who in enumerate(["client", "server"]):
            key = MATERIAL[place * key_len : (place + 1) * key_len]
            salt = MATERIAL[2 * key_len + place * salt_len :][:salt_len]
            policy = Policy(key=key + salt, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile)
            policy.window_size = 1024
            session = Session(policy=policy)
            for index in INDEXES:
                plain = rtp(index)
                print(name, who, "rtp", index, plain.hex(), session.protect(plain).hex())
            for number in range(1, 5):
                plain = rtcp(number)
                print(name, who, "rtcp", number, plain.hex(), session.protect_rtcp(plain).hex())


main()
