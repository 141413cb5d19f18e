#!/bin/sh
# The main job on the sound set that the package generates: train, evaluate, classify.
# Usage: sh examples/demo.sh FOLDER_OF_MELASTIC
set -eu
bin=$1
out=demo
rm -rf "$out"
echo "1. generating sounds: 0.2 to 8 s long, noisy, of varying pitch and level"
"$bin/melastic" data prepare sounds --out "$out/sounds/manifest.csv"
echo "2. training an audio spectrogram transformer on clips of their natural lengths"
"$bin/melastic" train sounds --data.manifest "$out/sounds/manifest.csv" --out "$out/run"
echo "3. evaluating it on the test clips: all of each clip, then its first 2 s and first half second"
"$bin/melastic" evaluate "$out/run" "$out/sounds/manifest.csv"
"$bin/melastic" evaluate "$out/run" "$out/sounds/manifest.csv" --seconds 2
"$bin/melastic" evaluate "$out/run" "$out/sounds/manifest.csv" --seconds 0.5
echo "4. classifying three test clips"
"$bin/melastic" classify "$out/run" --top 3 $(grep ',test,' "$out/sounds/manifest.csv" | cut -d, -f1 | sed -n "1p;30p;60p" | sed "s|^|$out/sounds/|")
echo
echo "model:             $out/run/model      (melastic.load(\"$out/run\"))"
echo "training curves:   $out/run/curves.png"
echo "confusion matrix:  $out/run/confusion.png"
echo "measurements:      $out/run/metrics.jsonl"
