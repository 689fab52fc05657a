/// What a flow did since its last record, all within one interval.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delta {
    pub(super) begun: bool,
    /// Start of the interval in seconds since the epoch.
    interval_s: u32,
    /// First and last packet, microseconds since the interval's start.
    first_us: u32,
    last_us: u32,
    counts: PerEnd<Counts>,
    pub(super) opened: bool,
    pub(super) joined: bool,
    open_at_start: bool,
    pub(super) closed: Option<Reason>,
    pub(super) syn_to_synack_us: Option<u32>,
    pub(super) synack_to_ack_us: Option<u32>,
    pub(super) first_response_us: Option<u64>,
    duration_us: Option<u64>,
}

/// The counters of one end. 32 bits do for bytes: a flow that sends more makes another record (see
/// [`Flow::fits`]), and the other counters are smaller than bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    bytes: u32,
    payload_bytes: u32,
    packets: u32,
    retransmitted_packets: u32,
    zero_window_packets: u32,
}

impl Counts {
    fn counters(self) -> Counters {
        Counters {
            bytes: self.bytes.into(),
            payload_bytes: self.payload_bytes.into(),
            packets: self.packets.into(),
            retransmitted_packets: self.retransmitted_packets.into(),
            zero_window_packets: self.zero_window_packets.into(),
        }
    }
}

impl Reason {
    fn closed(self) -> Closed {
        let mut closed = Closed::default();
        *match self {
            Self::Fin => &mut closed.fin,
            Self::ResetByClient => &mut closed.reset_by_client,
            Self::ResetByServer => &mut closed.reset_by_server,
            Self::Refused => &mut closed.refused,
            Self::Unanswered => &mut closed.unanswered,
            Self::Idle => &mut closed.idle,
            Self::Superseded => &mut closed.superseded,
            Self::Evicted => &mut closed.evicted,
        } = 1;
        closed
    }
}

fn measure(duration_us: Option<u64>) -> Measure {
    duration_us.map(Measure::sample).unwrap_or_default()
}
