#!/usr/bin/env bash
# rabbitmq-c's amqp-tools against whatever listens on AMQP_PORT. See ../README.md. They know no confirms, tx or
# mandatory, but they are the C library: another handshake, other frames.
set -u

base=(
  publish_and_get
  publish_from_stdin_line_by_line
  large_body
  empty_body
  persistent_and_properties
  consume_with_prefetch
  declare_and_delete
  no_exchange_is_404
  access_refused_is_403
  vhost_not_allowed_is_530
  wrong_password_is_403
)
dedup=(
  duplicate_headers_need_an_id_to_count
)

to=(--server "$AMQP_HOST" --port "$AMQP_PORT" --vhost "$AMQP_VHOST")
# A failing step ends its scenario: they run in subshells, with -e.

declare_queue() { amqp-declare-queue "${to[@]}" -d -q "$1" >/dev/null; }
publish() { local queue=$1; shift; amqp-publish "${to[@]}" -r "$queue" "$@"; }
get() { amqp-get "${to[@]}" -q "$1"; }
expect() { [ "$1" = "$2" ] || { echo "expected '$2', got '$1'" >&2; return 1; }; }
# A command that must fail and say why.
refused() {
  local why=$1; shift
  local said
  if said=$("$@" 2>&1); then echo "not refused: $*" >&2; return 1; fi
  [[ $said == *"$why"* ]] || { echo "expected '$why' in '$said'" >&2; return 1; }
}

publish_and_get() {
  declare_queue tools-get
  publish tools-get -b hello
  expect "$(get tools-get)" hello
  expect "$(get tools-get || echo empty)" empty
}

publish_from_stdin_line_by_line() {
  declare_queue tools-lines
  seq 1 200 | publish tools-lines -l
  expect "$(amqp-consume "${to[@]}" -q tools-lines -c 200 cat | tr -d '\n')" "$(seq 1 200 | tr -d '\n')"
}

large_body() {
  declare_queue tools-large
  local file sum
  file=$(mktemp)
  head -c 16777216 /dev/urandom >"$file"
  publish tools-large <"$file"
  sum=$(get tools-large | sha256sum)
  expect "$sum" "$(sha256sum <"$file")"
  rm "$file"
}

empty_body() {
  declare_queue tools-empty
  publish tools-empty -b ''
  expect "$(amqp-consume "${to[@]}" -q tools-empty -c 1 md5sum)" "$(md5sum </dev/null)"
}

persistent_and_properties() {
  declare_queue tools-persistent
  publish tools-persistent -p -C text/plain -t someone -H 'x-one: 1' -b kept
  expect "$(get tools-persistent)" kept
}

consume_with_prefetch() {
  declare_queue tools-consume
  for number in 1 2 3; do publish tools-consume -b "$number"; done
  expect "$(amqp-consume "${to[@]}" -q tools-consume -c 3 -p 1 cat)" 123
}

declare_and_delete() {
  declare_queue tools-delete
  amqp-delete-queue "${to[@]}" -q tools-delete >/dev/null
  refused 404 get tools-delete
}

no_exchange_is_404() {
  # Without confirms the broker's answer meets our close; a consumer from a missing queue hears it for certain.
  refused 404 amqp-consume "${to[@]}" -q no-such-queue -c 1 cat
}

access_refused_is_403() {
  refused 403 amqp-declare-queue "${to[@]}" --username reader --password reader -q tools-refused
}

vhost_not_allowed_is_530() {
  refused 530 amqp-get --server "$AMQP_HOST" --port "$AMQP_PORT" --vhost "$AMQP_CLOSED_VHOST" -q any
}

wrong_password_is_403() {
  refused 403 amqp-get "${to[@]}" --username guest --password wrong -q any
}

# The tools cannot set a message-id: everything they send is forwarded.
duplicate_headers_need_an_id_to_count() {
  declare_queue tools-no-id
  for _ in 1 2 3; do publish tools-no-id -H 'message-id: 1' -b same; done
  expect "$(amqp-consume "${to[@]}" -q tools-no-id -c 3 cat)" samesamesame
}

declare -n scenarios=$1
bad=0
for name in "${scenarios[@]}"; do
  [ -z "${2:-}" ] || [ "$2" = "$name" ] || continue
  # `if` would switch -e off inside.
  said=$(set -e; "$name" 2>&1)
  if [ $? = 0 ]; then
    echo "ok $name"
  else
    bad=1
    echo "not ok $name ${said//$'\n'/ }"
  fi
done
exit $bad
