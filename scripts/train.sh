#!/usr/bin/env bash
# Train all embedded models on a CPU at the lowest priority, in order: drawings, the judge, autoencoders, generators. It
# can be stopped at any time and continues when run again. Its state is kept outside the checkout.
#
#   scripts/train.sh                        # all parts, one thread each, at most three at a time
#   STATE=FOLDER HARDWARE="..." scripts/train.sh
#   scripts/train.sh gpu 540                # on a GPU: all unfinished parts within this many seconds, generators in parallel
#   START=assets scripts/train.sh gpu 540   # generators start from FOLDER/FAMILY_tiny
#
# A finished part leaves STATE/done/PART. Nothing is written to assets/: `scripts/train.sh adopt PART` copies a finished
# part there, once it is known to be better than the current one.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
STATE=${STATE:-${XDG_CACHE_HOME:-$HOME/.cache}/fovea-train}
HARDWARE=${HARDWARE:-"$(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"}
export OMP_NUM_THREADS=1 # two single-threaded processes are faster than one with two threads, which wait for each other
mkdir -p "$STATE/done"

part() { # NAME COMMAND...: run once
  local name=$1
  shift
  [ -e "$STATE/done/$name" ] && return
  nice -n 19 "$@" >> "$STATE/$name.log" 2>&1 && touch "$STATE/done/$name"
}

shared() { # NAME COMMAND...: a part needed by two jobs: the second waits for the first
  (flock 9 && part "$@") 9> "$STATE/$1.lock"
}

judge() {
  part clip "$PYTHON" -m scripts.train_clip --data "$STATE" --out "$STATE/clip_emoji" &&
    part clip.card "$PYTHON" -m scripts.clip_card --data "$STATE" --out "$STATE/clip_emoji" --hardware "$HARDWARE"
}

autoencoder() { # CHANNELS COMMAND...: run the command with the settings of this autoencoder
  local channels=$1
  shift
  case $channels in
    4) "$@" --channels 4 --kl 2e-5 --start assets/lumina_tiny/vae ;;
    16) "$@" --channels 16 --kl 5e-5 --start assets/sd3_tiny/vae ;;
  esac
}

density() { # FAMILY: the shift of the noise levels that it is trained on, where it is not its scheduler's
  case $1 in flux) echo --shift 5 ;; esac
}

start() { # FAMILY: the weights that it starts from
  [ -z "${START:-}" ] || echo --start "$START/$1_tiny"
}

generator() { # FAMILY [ARGUMENTS...]
  local family=$1
  shift
  part "$family" "$PYTHON" -m scripts.train_dit "$family" --steps 60000 --first 0.5 --data "$STATE" --out "$STATE/${family}_tiny" $(density "$family") $(start "$family") "$@"
}

on_a_gpu() { # SECONDS: train unfinished parts: about 80 s for autoencoders, the rest for generators, the judge in parallel
  local end=$((SECONDS + $1)) painters=$((($(env -u OMP_NUM_THREADS nproc) + 1) / 2)) channels family
  part drawings "$PYTHON" -m scripts.drawings --folder "$STATE"
  env -u OMP_NUM_THREADS "$PYTHON" -m scripts.scenes --folder "$STATE" --scale 5 > "$STATE/scenes.log" 2>&1 &
  part clip "$PYTHON" -m scripts.train_clip --steps 3000 --batch 256 --workers $((painters / 2)) --data "$STATE" \
    --out "$STATE/clip_emoji" &
  for family in sd3 flux lumina; do
    channels=16
    [ $family = lumina ] && channels=4
    {
      autoencoder $channels shared "vae$channels" "$PYTHON" -m scripts.train_vae --minutes 1.3 --batch 128 --lr 1e-3 \
        --workers $painters --data "$STATE" &&
        part $family "$PYTHON" -m scripts.train_dit $family --minutes "$(((end - SECONDS - 25) * 100 / 60))e-2" --batch 4 \
          --first 0.4 --ema 0.999 $(density "$family") $(start "$family") --graphs --scenes 5 --data "$STATE" --out "$STATE/${family}_tiny"
    } &
  done
  wait
}

if [ "${1:-}" = gpu ]; then
  on_a_gpu "$2"
  exit
fi
if [ "${1:-}" = adopt ]; then
  case $2 in
    clip) cp "$STATE"/clip_emoji/* assets/clip_emoji/ ;;
    lumina | sd3 | flux) cp -r "$STATE/${2}_tiny/." "assets/${2}_tiny/" && "$PYTHON" -m scripts.card "$2" --data "$STATE" --hardware "$HARDWARE" ;;
    *) echo "unknown part: $2 (clip, lumina, sd3, flux)" >&2 && exit 2 ;;
  esac
  exit
fi

part drawings "$PYTHON" -m scripts.drawings --folder "$STATE"
judge &
for channels in 16 4; do
  autoencoder $channels part vae$channels "$PYTHON" -m scripts.train_vae --steps 6000 --lr 1e-3 --data "$STATE"
done
generator sd3 &
generator lumina
wait
generator flux --start "$STATE/sd3_tiny"
