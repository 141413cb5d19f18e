#!/bin/sh
# The main job on the sound set that the package generates: train one model that stretches, evaluate
# it over patch sizes, frame shifts and lengths, classify clips.
# Usage: sh examples/demo.sh FOLDER_OF_MELASTIC
set -eu
bin=$1
out=demo
rm -rf "$out"
echo "1. generating sounds: 0.2 to 8 s long, noisy, of varying pitch and level"
"$bin/melastic" data prepare sounds --clips-per-class 100 --out "$out/sounds/manifest.csv"
echo "2. training one model for many patch sizes, frame shifts and lengths, on clips as long as they are"
"$bin/melastic" train sounds --data.manifest "$out/sounds/manifest.csv" --out "$out/run"
echo "3. evaluating it on the test clips through its own view"
"$bin/melastic" evaluate "$out/run" "$out/sounds/manifest.csv"
echo "4. sweeping patch size, frame shift and length: the same model at many prices"
"$bin/melastic" sweep "$out/run" "$out/sounds/manifest.csv" --patch 128x2 128x4 128x8 \
    --hop-ms 10 20 --seconds 0.5 2 all --out "$out/sweep" --store
echo "5. classifying three test clips: through the model's own view, then for half the price"
clips=$(grep ',test,' "$out/sounds/manifest.csv" | cut -d, -f1 | sed -n "1p;30p;60p" | sed "s|^|$out/sounds/|")
"$bin/melastic" classify "$out/run" --top 3 $clips
"$bin/melastic" classify "$out/run" --top 3 --gmacs 0.015 $clips
echo
echo "model:                $out/run/model      (melastic.load(\"$out/run\"))"
echo "training curves:      $out/run/curves.png"
echo "confusion matrix:     $out/run/confusion.png"
echo "measurements:         $out/run/metrics.jsonl"
echo "accuracy and price:   $out/sweep/sweep.png, $out/sweep/sweep.csv"
