package main

// relayProblem says what is wrong with a relay message, or why a transfer ended. relayNoProblem is none.
type relayProblem uint8

const (
	relayNoProblem relayProblem = iota
	relayBadMessage
	relayBadFrame
	relayBadState
	relayNotYours
	relayNotInRoom
	relayUnknownTransfer
	relayNoReceiver
	relayUnanswered
	relayTooSlow
	relayIdle
	relayDuplicate
	relayCancelled
	relayReceiverGone
	relaySenderGone
	relayOverFreeLimit
	relayOverLimit
	relayTooManyTransfers
	relayTooManyFrames
	relayOff
	relayFull
	relayStopping
	relayProblemCount // how many
)

// relayProblems: the code (HTTP's meaning), the stable slug and the text that the app shows.
// The app's sender knows the two over-limit texts by what they contain: 升级到 PRO (over the free limit, where PRO is to
// be had) and 文件大小超过限制 (over the limit for all); these substrings must stay as they are.
var relayProblems = [relayProblemCount]struct {
	code int
	slug string
	text string
}{
	relayNoProblem:        {},
	relayBadMessage:       {400, "relay_bad_message", "A file transfer message was malformed."},
	relayBadFrame:         {400, "relay_bad_frame", "A part of the file was malformed."},
	relayBadState:         {400, "relay_bad_state", "The file transfer is not ready for that."},
	relayNotYours:         {403, "relay_not_yours", "You are not a party of this file transfer."},
	relayNotInRoom:        {403, "relay_not_in_room", "Join the room before sending a file in it."},
	relayUnknownTransfer:  {404, "relay_unknown_transfer", "This file transfer is unknown or over."},
	relayNoReceiver:       {404, "relay_no_receiver", "The receiver is not in the room."},
	relayUnanswered:       {408, "relay_unanswered", "The receiver did not answer."},
	relayTooSlow:          {408, "relay_too_slow", "The receiver's connection is too slow."},
	relayIdle:             {408, "relay_idle", "The file transfer stood still for too long."},
	relayDuplicate:        {409, "relay_duplicate", "There is a file transfer with this id already."},
	relayCancelled:        {410, "relay_cancelled", "The sender has cancelled the file transfer."},
	relayReceiverGone:     {410, "relay_receiver_gone", "The receiver is gone."},
	relaySenderGone:       {410, "relay_sender_gone", "The sender is gone."},
	relayOverFreeLimit:    {413, "relay_over_free_limit", "文件超过免费中转的大小上限，升级到 PRO 可发送更大的文件"},
	relayOverLimit:        {413, "relay_over_limit", "文件大小超过限制"},
	relayTooManyTransfers: {429, "relay_too_many_transfers", "Too many file transfers at once. Wait for one to end."},
	relayTooManyFrames:    {429, "relay_too_many_frames", "The file was sent again too often."},
	relayOff:              {501, "relay_disabled", "This server does not relay files."},
	relayFull:             {503, "relay_full", "The server is relaying as many files as it can. Try again soon."},
	relayStopping:         {503, "relay_stopping", "The server is stopping."},
}

// String is the problem's slug: on the wire, in logs and in metrics.
func (p relayProblem) String() string { return relayProblems[p].slug }
