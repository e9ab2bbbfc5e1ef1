//! The guest's clock and its timers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// The clock that the guest starts with. At most one of `utc` and `timezone` is set.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct Clock {
    /// Which timers exist and how they catch up.
    pub timer: Option<Timer>,
    /// The clock shows local time of this zone, for example `Europe/Amsterdam`.
    pub timezone: Option<String>,
    /// The clock shows UTC, or UTC with an offset. This is the default.
    pub utc: Option<ClockOffsetUtc>,
}

/// UTC.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ClockOffsetUtc {
    /// Seconds added to it. Unset: 0; while unset, what the guest sets is kept over reboots.
    pub offset_seconds: Option<i32>,
}

/// Timers.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct Timer {
    /// High precision event timer.
    pub hpet: Option<HpetTimer>,
    /// Hyper-V reference clock.
    pub hyperv: Option<HypervTimer>,
    /// kvmclock.
    pub kvm: Option<KvmTimer>,
    /// i8254.
    pub pit: Option<PitTimer>,
    /// CMOS real-time clock.
    pub rtc: Option<RtcTimer>,
}

/// High precision event timer.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct HpetTimer {
    /// Unset: `true`.
    pub present: Option<bool>,
    /// What happens to missed ticks.
    pub tick_policy: Option<HpetTickPolicy>,
}

/// What happens to ticks of the HPET that came due while the guest did not run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "lowercase")]
pub enum HpetTickPolicy {
    /// They come late, at the usual rate.
    #[default]
    Delay,
    /// They come at a higher rate until the guest has caught up.
    Catchup,
    /// Several become one.
    Merge,
    /// They are lost.
    Discard,
}

/// Hyper-V reference clock.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct HypervTimer {
    /// Unset: `true`.
    pub present: Option<bool>,
}

/// kvmclock.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
pub struct KvmTimer {
    /// Unset: `true`.
    pub present: Option<bool>,
}

/// i8254.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PitTimer {
    /// Unset: `true`.
    pub present: Option<bool>,
    /// What happens to missed ticks.
    pub tick_policy: Option<PitTickPolicy>,
}

/// What happens to ticks of the PIT that came due while the guest did not run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "lowercase")]
pub enum PitTickPolicy {
    /// They come late, at the usual rate.
    #[default]
    Delay,
    /// They come at a higher rate until the guest has caught up.
    Catchup,
    /// They are lost.
    Discard,
}

/// CMOS real-time clock.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct RtcTimer {
    /// Unset: `true`.
    pub present: Option<bool>,
    /// What happens to missed ticks.
    pub tick_policy: Option<RtcTickPolicy>,
    /// Which clock it follows.
    pub track: Option<RtcTrack>,
}

/// What happens to ticks of the RTC that came due while the guest did not run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[serde(rename_all = "lowercase")]
pub enum RtcTickPolicy {
    /// They come late, at the usual rate.
    #[default]
    Delay,
    /// They come at a higher rate until the guest has caught up.
    Catchup,
}

/// Which clock the RTC follows.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum RtcTrack {
    /// Virtual time: it stands still while the machine is paused.
    Guest,
    /// The host's clock.
    Wall,
}
