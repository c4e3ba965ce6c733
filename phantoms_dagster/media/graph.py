"""The ffmpeg filter graph and encoder settings of a video: one process turns sound and captions into the finished MP4.

`ffmpeg` runs it; `cards` and `captions` write the captions file.
"""

from __future__ import annotations

from phantoms_dagster.domain.models import Palette
from phantoms_dagster.media import ass

TARGET_LUFS = -14.0
_PEAK_LIMIT = 10 ** (-1.5 / 20)
_GROUND_WIDTH, _GROUND_HEIGHT = 36, 64

# 16-bit colour at 36x64 costs almost nothing and scales up without visible steps. Static grain hides the remaining banding and,
# since it does not move, needs few bits.
_GRAIN = 4

VIDEO_CODEC = [
    *("-c:v", "libx264", "-preset", "veryfast", "-profile:v", "high", "-crf", "21", "-pix_fmt", "yuv420p"),
    *("-g", "60", "-keyint_min", "60", "-sc_threshold", "0", "-flags", "+cgop"),
    # Nothing moves fast, so a short motion search saves a fifth of the time without visible loss.
    *("-x264-params", "me=dia:subme=1:weightp=0:rc-lookahead=10"),
    # Without B-frames there are no composition offsets and thus no need for an edit list, which Instagram refuses.
    *("-bf", "0", "-maxrate", "16M", "-bufsize", "24M"),
    *("-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "tv"),
]
AUDIO_CODEC = ["-c:a", "aac", "-b:a", "128k", "-ar", "48000", "-ac", "2"]
# An AAC stream begins with 1024 priming samples, which are played if no edit list skips them. As many samples are cut from the
# start of the sound, so that picture and sound both begin at 0 and stay in sync.
AAC_HEAD = "atrim=start_sample=1024"
MP4 = ["-movflags", "+faststart", "-use_editlist", "0", "-map_metadata", "-1", "-fflags", "+bitexact", "-f", "mp4"]


def background(palette: Palette) -> str:
    """The filters for the background: soft lights that drift slowly over the palette's gradient, darker at the edges."""
    low, high = palette.background
    dark = ass.luminance(palette.text) > 0.45
    deep = ass.mix(low, "#000000" if dark else "#ffffff", 0.35)
    lights = [  # colour, share, centre, drift, radians per second, size
        (ass.vivid(high, 0.0), 0.95, (0.16, 0.12), (0.22, 0.10), (0.43, 0.31), (0.62, 0.34)),
        (ass.vivid(high, -0.10), 0.80, (0.90, 0.52), (0.18, 0.14), (0.37, 0.29), (0.55, 0.30)),
        (ass.vivid(high, 0.09), 0.85, (0.26, 0.90), (0.26, 0.08), (0.29, 0.41), (0.60, 0.27)),
    ]
    planes = []
    for channel in range(3):
        value = f"{ass.channels(deep)[channel]}+({ass.channels(low)[channel]}-{ass.channels(deep)[channel]})*(1-Y/{_GROUND_HEIGHT})"
        for rgb, share, centre, drift, speed, size in lights:
            dx = f"(X/{_GROUND_WIDTH}-{centre[0]}-{drift[0]}*sin(T*{speed[0]}))/{size[0]}"
            dy = f"(Y/{_GROUND_HEIGHT}-{centre[1]}-{drift[1]}*cos(T*{speed[1]}))/{size[1]}"
            amount = f"{share}*exp(-({dx})^2-({dy})^2)"
            value = f"lerp({value},{ass.channels(rgb)[channel]},{amount})"
        planes.append(f"257*({value})*{_vignette(0.34 if dark else 0.10)}")
    red, green, blue = planes
    return (
        f"nullsrc=s={_GROUND_WIDTH}x{_GROUND_HEIGHT}:r={ass.FPS},format=gbrp16,"
        f"geq=r='{red}':g='{green}':b='{blue}',"
        "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p10,"
        f"scale={ass.WIDTH}:{ass.HEIGHT}:flags=bilinear:in_color_matrix=bt709:out_color_matrix=bt709:in_range=tv:out_range=tv:"
        f"sws_dither=none,format=yuv420p,setsar=1,noise=c0s={_GRAIN}:c0f=u:all_seed=7"
    )


def _vignette(amount: float) -> str:
    """The expression of a brightness factor: 1 in the middle, `1 - amount` in the corners."""
    return f"(1-{amount}*(pow(2*X/{_GROUND_WIDTH}-1,2)+pow(2*Y/{_GROUND_HEIGHT}-1,2))/2)"


def picture(palette: Palette, captions: str, fonts: str, seconds: float) -> str:
    """The filters for the whole picture. `captions` and `fonts` are plain names in ffmpeg's working directory."""
    colours = "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
    return f"{background(palette)},trim=duration={seconds:.3f},{colours},ass={captions}:fontsdir={fonts}"


def voice(gain_db: float, seconds: float | None = None) -> str:
    """The filters for the voice: high-pass, light compression, gain of `gain_db`, limiter at -1.5 dBFS, 48 kHz stereo.

    The limiter runs at four times the sample rate, so that it also catches peaks between samples.
    """
    chain = [
        "highpass=f=70",
        "acompressor=threshold=-24dB:ratio=2.5:attack=8:release=120:knee=6",
        f"volume={gain_db:.2f}dB",
        "aresample=192000",
        f"alimiter=limit={_PEAK_LIMIT:.4f}:attack=3:release=60:level=0:latency=1",
        "aresample=48000",
        "aformat=sample_fmts=fltp:channel_layouts=stereo",
    ]
    if seconds is not None:
        chain += [f"apad=whole_dur={seconds:.3f}", f"atrim=duration={seconds:.3f}", AAC_HEAD]
    return ",".join(chain)
