#!/bin/sh
# Count: answers each message with how many there have been since the start.
# With "framing":"lines" each message is one line of JSON, and so is each answer: a shell is all it takes.
count=0
while IFS= read -r line; do # ends when the server closes our input; "$line" is the data, which does not matter here
    count=$((count + 1))
    printf '{"header":{"status":"0","command":"reply"},"payload":{"data":{"count":%d}}}\n' "$count"
done
