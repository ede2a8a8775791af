//! Which addresses may be dialled. Never resolves and never connects.

use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who may dial an address. The order matters: the stricter one is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// Anybody.
    Public,
    /// Only a target that the operator marked `internal`.
    Internal(&'static str),
    /// Nobody: these hand out credentials of the machine, or are no address of one host.
    Never(&'static str),
}

/// Why an address is not dialled.
pub(crate) struct Blocked {
    /// What kind of address it is, with its article.
    pub(crate) what: &'static str,
    /// Whether nothing opens it.
    pub(crate) never: bool,
}

impl Reach {
    /// Why a target may not dial this address, `None` if it may.
    pub(crate) const fn blocked(self, internal: bool) -> Option<Blocked> {
        match self {
            Self::Public => None,
            Self::Internal(_) if internal => None,
            Self::Internal(what) => Some(Blocked { what, never: false }),
            Self::Never(what) => Some(Blocked { what, never: true }),
        }
    }
}

/// Judges one address, looking through every form that carries an IPv4 address inside an IPv6 one.
pub(crate) fn judge(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => judge_v4(address),
        IpAddr::V6(address) => judge_v6(address),
    }
}

fn judge_v4(address: Ipv4Addr) -> Reach {
    V4.iter().find(|(net, _)| net.contains(&address)).map_or(Reach::Public, |(_, reach)| *reach)
}

fn judge_v6(address: Ipv6Addr) -> Reach {
    let outer =
        V6.iter().find(|(net, _)| net.contains(&address)).map_or(Reach::Internal("a reserved"), |(_, reach)| *reach);
    // The kernel or a translator on the way delivers these to the address inside.
    embedded(address).into_iter().flatten().map(judge_v4).fold(outer, Ord::max)
}

/// The IPv4 addresses that an IPv6 address stands for: by its prefix, and by its interface id.
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let segments = address.segments();
    let [.., interface, mark, high, low] = segments;
    let tail = join(high, low);
    let by_prefix = match segments {
        // Mapped, compatible, translated; NAT64 with the well-known and the local prefix.
        [0, 0, 0, 0, 0, 0xffff | 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, ..] => Some(tail),
        // 6to4.
        [0x2002, high, low, ..] => Some(join(high, low)),
        // Teredo hides the client's address by inverting it.
        [0x2001, 0, ..] => Some(join(!high, !low)),
        _ => None,
    };
    // ISATAP works under any prefix.
    let by_interface = (matches!(interface, 0 | 0x200) && mark == 0x5efe).then_some(tail);
    [by_prefix, by_interface]
}

const fn join(high: u16, low: u16) -> Ipv4Addr {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

const METADATA: Reach = Reach::Never("the metadata service's");
const MULTICAST: Reach = Reach::Never("a multicast");
const PRIVATE: Reach = Reach::Internal("a private");
const LOOPBACK: Reach = Reach::Internal("a loopback");
const LINK_LOCAL: Reach = Reach::Internal("a link-local");
const RESERVED: Reach = Reach::Internal("a reserved");

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(segments: [u16; 8], length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::from_segments(segments), length)
}

/// The first net that contains an address decides; none means public.
static V4: [(Ipv4Net, Reach); 23] = [
    (v4(169, 254, 169, 254, 32), METADATA), // AWS, Google, Azure, Oracle, DigitalOcean
    (v4(169, 254, 170, 0, 24), METADATA),   // AWS task and pod credentials
    (v4(169, 254, 0, 0, 30), METADATA),     // Tencent, and neighbours that nobody serves from
    (v4(100, 100, 100, 200, 32), METADATA), // Alibaba
    (v4(168, 63, 129, 16, 32), METADATA),   // Azure's wire server
    (v4(192, 0, 0, 192, 32), METADATA),     // Oracle, classic
    (v4(127, 0, 0, 0, 8), LOOPBACK),
    (v4(10, 0, 0, 0, 8), PRIVATE),
    (v4(172, 16, 0, 0, 12), PRIVATE),
    (v4(192, 168, 0, 0, 16), PRIVATE),
    (v4(100, 64, 0, 0, 10), Reach::Internal("a carrier-grade NAT")),
    (v4(169, 254, 0, 0, 16), LINK_LOCAL),
    (v4(0, 0, 0, 0, 32), Reach::Internal("the unspecified")),
    (v4(0, 0, 0, 0, 8), RESERVED),
    (v4(192, 0, 0, 0, 24), RESERVED),
    (v4(192, 0, 2, 0, 24), RESERVED),
    (v4(192, 88, 99, 0, 24), RESERVED),
    (v4(198, 18, 0, 0, 15), RESERVED),
    (v4(198, 51, 100, 0, 24), RESERVED),
    (v4(203, 0, 113, 0, 24), RESERVED),
    (v4(224, 0, 0, 0, 4), MULTICAST),
    (v4(255, 255, 255, 255, 32), Reach::Never("the broadcast")),
    (v4(240, 0, 0, 0, 4), RESERVED),
];

/// The first net that contains an address decides; none means reserved: only `2000::/3` is given out.
static V6: [(Ipv6Net, Reach); 16] = [
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32), METADATA),     // AWS
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), METADATA), // Google
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), LOOPBACK),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), Reach::Internal("the unspecified")),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), Reach::Public), // the address inside decides
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), Reach::Public), // the address inside decides
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), Reach::Internal("a unique-local")),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), LINK_LOCAL),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), Reach::Internal("a site-local")),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), MULTICAST),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), RESERVED), // Teredo, ORCHID, benchmarks
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), RESERVED),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), RESERVED),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), Reach::Public), // the address inside decides
    (v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16), RESERVED),
    (v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3), Reach::Public),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cases: &str, want: fn(Reach) -> bool) {
        for text in cases.split_whitespace() {
            let reach = judge(text.parse().unwrap());
            assert!(want(reach), "{text} was judged {reach:?}");
        }
    }

    #[test]
    fn public_addresses_are_open() {
        let cases = "8.8.8.8 1.1.1.1 172.15.0.1 172.32.0.1 100.63.255.255 100.128.0.0 192.167.1.1 126.255.255.255 \
            2606:4700::1111 2a00:1450::1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:0808:0808::1";
        check(cases, |reach| reach == Reach::Public);
    }

    #[test]
    fn addresses_behind_the_wall_need_internal() {
        let cases = "127.0.0.1 127.255.255.254 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 169.254.7.7 0.0.0.0 \
            0.1.2.3 192.0.0.8 198.18.0.1 192.0.2.1 240.0.0.1 ::1 :: fc00::1 fdff::1 fe80::1 fec0::1 2001:db8::1 4000::1 \
            ::ffff:127.0.0.1 ::ffff:10.1.2.3 ::127.0.0.1 ::ffff:0:10.0.0.1 64:ff9b::10.0.0.1 64:ff9b::127.0.0.1 64:ff9b:1::8.8.8.8 \
            2002:7f00:1::1 2002:c0a8:101::1 2001:0:1:2:3:4:80ff:fffe 2606:4700::5efe:10.0.0.1 2606:4700::200:5efe:192.168.0.1";
        check(cases, |reach| matches!(reach, Reach::Internal(_)));
    }

    #[test]
    fn nobody_dials_metadata_multicast_or_broadcast() {
        let cases = "169.254.169.254 169.254.170.2 100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254 fd20:ce::254 \
            ::ffff:169.254.169.254 ::169.254.169.254 ::ffff:0:169.254.169.254 64:ff9b::169.254.169.254 64:ff9b:1::169.254.169.254 \
            2002:a9fe:a9fe::1 2001:0:1:2:3:4:5601:5601 fe80::5efe:169.254.169.254 224.0.0.1 239.255.255.250 255.255.255.255 \
            ff02::1 ::ffff:224.0.0.1";
        check(cases, |reach| reach.blocked(true).is_some());
    }
}
