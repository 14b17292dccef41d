#!/usr/bin/env bash
# Trains all embedded models on a CPU, at the lowest priority, each part in order: drawings, the judge, autoencoders,
# generators. Stop it at any moment and run it again: it goes on where it was. Its state lies outside the checkout.
#
#   scripts/train.sh                        # all parts, one thread each, as many at a time as there are cores
#   STATE=FOLDER HARDWARE="..." scripts/train.sh
#
# A part that is finished leaves STATE/done/PART. Nothing is written into assets/: `scripts/train.sh adopt PART` copies a
# finished part there, once its card says that it is better than what is there.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
STATE=${STATE:-${XDG_CACHE_HOME:-$HOME/.cache}/fovea-train}
HARDWARE=${HARDWARE:-"$(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"}
export OMP_NUM_THREADS=1 # two processes of one thread do more than one of two, whose threads wait for each other
mkdir -p "$STATE/done"

part() { # NAME COMMAND...: once
  local name=$1
  shift
  [ -e "$STATE/done/$name" ] && return
  nice -n 19 "$@" >> "$STATE/$name.log" 2>&1 && touch "$STATE/done/$name"
}

judge() {
  part clip "$PYTHON" -m scripts.train_clip --data "$STATE" --out "$STATE/clip_emoji" &&
    part clip.card "$PYTHON" -m scripts.clip_card --data "$STATE" --out "$STATE/clip_emoji" --hardware "$HARDWARE"
}

autoencoders() {
  part vae16 "$PYTHON" -m scripts.train_vae --channels 16 --steps 6000 --kl 5e-5 --lr 1e-3 --start assets/sd3_tiny/vae --data "$STATE"
  part vae4 "$PYTHON" -m scripts.train_vae --channels 4 --steps 6000 --kl 2e-5 --lr 1e-3 --start assets/lumina_tiny/vae --data "$STATE"
}

generator() { # FAMILY [ARGUMENTS...]
  local family=$1
  shift
  part "$family" "$PYTHON" -m scripts.train_dit "$family" --steps 60000 --first 0.5 --data "$STATE" --out "$STATE/${family}_tiny" "$@"
}

if [ "${1:-}" = adopt ]; then
  case $2 in
    clip) cp "$STATE"/clip_emoji/* assets/clip_emoji/ ;;
    lumina | sd3 | flux) cp -r "$STATE/${2}_tiny/." "assets/${2}_tiny/" && "$PYTHON" -m scripts.card "$2" --hardware "$HARDWARE" ;;
    *) echo "unknown part: $2 (clip, lumina, sd3, flux)" >&2 && exit 2 ;;
  esac
  exit
fi

part drawings "$PYTHON" -m scripts.drawings --folder "$STATE"
judge &
autoencoders
generator sd3 &
generator lumina
wait
generator flux --start "$STATE/sd3/state.pt"
