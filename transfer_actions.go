package main

import "time"

// The actions of a transfer, as the rules in transfer.go name them. Each reads the event under way, changes the
// transfer and emits effects; all run inside Step.

func passOver(*Transfer, *TransferEvent) bool { return true }

func refuseSecondRequest(t *Transfer, _ *TransferEvent) bool { return t.refuse(relayDuplicate) }

func forwardToSender(t *Transfer, _ *TransferEvent) bool {
	t.emit(TransferEffect{Kind: EffectForward, To: t.Sender})
	return true
}

func forwardToReceiver(t *Transfer, _ *TransferEvent) bool {
	t.tellReceiver(EffectForward, relayNoProblem)
	return true
}

func forwardToPeer(t *Transfer, ev *TransferEvent) bool {
	if ev.By == t.Sender {
		return forwardToReceiver(t, ev)
	}
	return forwardToSender(t, ev)
}

// noteProgress restarts the idle clock. Only what can happen a bounded number of times may call it.
func noteProgress(t *Transfer, _ *TransferEvent) bool {
	t.idleUntil = t.now.Add(relayIdleTimeout)
	return true
}

func bindReceiver(t *Transfer, ev *TransferEvent) bool {
	for _, a := range t.asked {
		if a.socket == ev.By && !a.open {
			return t.refuse(relayBadState) // it has declined
		}
	}
	t.receiver = ev.By
	t.flow = t.asksFlow && ev.Flow
	t.answerUntil = time.Time{}
	return true
}

func cancelOthers(t *Transfer, _ *TransferEvent) bool {
	for _, a := range t.asked {
		if a.open && a.socket != t.receiver {
			t.emit(TransferEffect{Kind: EffectCancel, To: a.socket})
		}
	}
	return true
}

// unlessOthersAsked: one socket that declines does not end what another may still accept. The sender's word does.
func unlessOthersAsked(t *Transfer, ev *TransferEvent) bool {
	if ev.By == t.Sender {
		return true
	}
	open, wasOpen := false, false
	for i, a := range t.asked {
		if a.socket == ev.By {
			wasOpen, t.asked[i].open = a.open, false
		}
		open = open || t.asked[i].open
	}
	return wasOpen && !open
}

// forgetAsked strikes a socket from those asked.
func forgetAsked(t *Transfer, ev *TransferEvent) bool {
	for i, a := range t.asked {
		if a.socket == ev.By {
			t.asked = append(t.asked[:i], t.asked[i+1:]...)
			break
		}
	}
	return true
}

func graceIfNobodyAsked(t *Transfer, _ *TransferEvent) bool {
	for _, a := range t.asked {
		if a.open {
			return true
		}
	}
	if t.graceUntil.IsZero() {
		t.graceUntil = t.now.Add(relayGrace)
	}
	return true
}

func askIfNobodyAsked(t *Transfer, ev *TransferEvent) bool {
	if !t.graceUntil.IsZero() {
		t.graceUntil = time.Time{}
		t.asked = append(t.asked, askedSocket{ev.By, true})
		t.emit(TransferEffect{Kind: EffectRequest, To: ev.By})
	}
	return true
}

func loseReceiver(t *Transfer, ev *TransferEvent) bool {
	if ev.By != t.receiver {
		return false
	}
	t.receiver, t.lost = nil, ev.By
	t.before = t.state
	t.graceUntil = t.now.Add(relayGrace)
	return true
}

func moveReceiver(t *Transfer, ev *TransferEvent) bool {
	if ev.By == t.receiver {
		return false
	}
	forgetAsked(t, ev)
	t.asked = append(t.asked, askedSocket{socket: ev.By})
	t.receiver, t.lost = ev.By, nil
	t.graceUntil = time.Time{}
	return true
}

// startMeanwhile and endMeanwhile move the state to which an interrupted transfer goes back.
func startMeanwhile(t *Transfer, _ *TransferEvent) bool {
	if t.before == StateAccepted {
		t.before = StateTransferring
	}
	return true
}

func endMeanwhile(t *Transfer, _ *TransferEvent) bool {
	if t.before == StateAccepted {
		return t.refuse(relayBadState)
	}
	t.before = StateEnding
	return true
}

func replayFrames(t *Transfer, _ *TransferEvent) bool {
	if t.buffered > 0 {
		t.emit(TransferEffect{Kind: EffectReplay, To: t.receiver, N: int64(t.buffered)})
	}
	return true
}

// openWindow lets a sender go on whose window is full, when its receiver is back. If all of the window had arrived and only its
// acks were lost, the replay brings the receiver nothing new, and the app does not acknowledge what it gets twice: both
// would wait. With one step of chunks more its next ack comes. There must be room for them in the buffer.
func openWindow(t *Transfer, _ *TransferEvent) bool {
	if t.flow && t.nextChunk < t.TotalChunks && t.nextChunk-t.acked >= relayWindow && t.buffered <= maxRelayUnacked-relayAckEvery {
		t.acked += relayAckEvery
		t.emit(TransferEffect{Kind: EffectAck, To: t.Sender, N: t.acked})
	}
	return true
}

// endAfterReplay repeats the end that went into the lost socket. It is sent also before the sender has said it, when all
// chunks are behind us: the last acks may have been lost, so that the sender waits for them and the receiver for the end.
// In resending the sender is about to send another end.
func endAfterReplay(t *Transfer, _ *TransferEvent) bool {
	state := t.state
	if state == StateInterrupted {
		state = t.before
	}
	if state == StateEnding || state == StateTransferring && t.nextChunk == t.TotalChunks {
		t.emit(TransferEffect{Kind: EffectEnd, To: t.receiver})
	}
	return true
}

// checkFrame refuses what the receiver would not take, and ends a transfer whose resends never end.
func checkFrame(t *Transfer, ev *TransferEvent) bool {
	want := t.ChunkSize
	if ev.Index == t.TotalChunks-1 {
		want = t.FileSize - ev.Index*t.ChunkSize
	}
	if ev.Index < 0 || ev.Index >= t.TotalChunks || ev.Total != t.TotalChunks || ev.Size != want {
		return t.refuse(relayBadFrame)
	}
	if t.frames == relayFrameBudget*t.TotalChunks+relayFrameBudgetSlack {
		return t.fail(relayTooManyFrames)
	}
	return true
}

func rewriteIfBuffered(t *Transfer, ev *TransferEvent) bool {
	i := t.place(ev.Index)
	if i < 0 {
		return true
	}
	t.frames++
	t.emit(TransferEffect{Kind: EffectRewrite, N: int64(i)})
	return false
}

// holdIfFull pauses a sender that goes beyond the buffer. Inside its window of 24 the app never does.
func holdIfFull(t *Transfer, _ *TransferEvent) bool {
	if t.buffered < maxRelayUnacked {
		return true
	}
	if !t.pausedUntil.IsZero() && !t.now.Before(t.pausedUntil) {
		return t.fail(relayTooSlow) // not only at the next tick: a second more is the app's patience
	}
	t.emit(TransferEffect{Kind: EffectHold})
	if t.pausedUntil.IsZero() {
		t.pausedUntil = t.now.Add(relayPauseTimeout)
		t.emit(TransferEffect{Kind: EffectPause, To: t.Sender})
	}
	return false
}

func queueFrame(t *Transfer, ev *TransferEvent) bool {
	t.buffer[t.buffered] = ev.Index
	t.buffered++
	t.frames++
	if ev.Index == t.nextChunk {
		t.nextChunk++
		noteProgress(t, ev)
	}
	t.emit(TransferEffect{Kind: EffectQueue})
	return true
}

// dropAcknowledged frees what the ack proves to have arrived; the reasons stand at Transfer.
func dropAcknowledged(t *Transfer, ev *TransferEvent) bool {
	if ev.Index < 0 || ev.Index >= t.TotalChunks || ev.Received < 1 || ev.Received > t.TotalChunks || ev.Total != 0 && ev.Total != t.TotalChunks {
		return t.refuse(relayBadMessage)
	}
	n := t.place(ev.Index) + 1
	if ev.Received == t.TotalChunks {
		n = t.buffered
	}
	if n > 0 && t.flow { // else what is written frees frames, and no frame is freed twice
		t.drop(n)
		t.letSenderGoOn()
	}
	if ev.Received > t.acked {
		t.acked = ev.Received
		noteProgress(t, ev)
	}
	return true
}

func dropWritten(t *Transfer, _ *TransferEvent) bool {
	if !t.flow && t.buffered > 0 {
		t.drop(1)
		t.letSenderGoOn()
	}
	return true
}

// noteEnd: the first end is progress, later ones follow resends.
func noteEnd(t *Transfer, ev *TransferEvent) bool {
	if !t.ended {
		t.ended = true
		noteProgress(t, ev)
	}
	return true
}

// checkResend knows nothing of the number of missing chunks: it may exceed what one message can name.
func checkResend(t *Transfer, ev *TransferEvent) bool {
	if ev.Index < 0 || ev.Index >= t.TotalChunks || ev.Total != t.TotalChunks {
		return t.refuse(relayBadMessage)
	}
	return true
}

// ackAllToSender: who has completed has all. If acks were lost with a socket, the sender still waits for them
// before its end, and would give up.
func ackAllToSender(t *Transfer, _ *TransferEvent) bool {
	if t.flow && t.acked < t.TotalChunks {
		t.acked = t.TotalChunks
		t.emit(TransferEffect{Kind: EffectAck, To: t.Sender, N: t.TotalChunks})
	}
	return true
}

func repeatComplete(t *Transfer, _ *TransferEvent) bool {
	t.emit(TransferEffect{Kind: EffectComplete, To: t.Sender})
	return true
}

func failBecause(why relayProblem) transferAction {
	return func(t *Transfer, _ *TransferEvent) bool { return t.fail(why) }
}

func abortTransfer(t *Transfer, ev *TransferEvent) bool { return t.fail(ev.Why) }

// checkDeadlines fails a transfer whose time is up, for the reason that tells most.
func checkDeadlines(t *Transfer, _ *TransferEvent) bool {
	due := func(at time.Time) bool { return !at.IsZero() && !t.now.Before(at) }
	switch {
	case due(t.pausedUntil):
		return t.fail(relayTooSlow)
	case due(t.graceUntil):
		return t.fail(relayReceiverGone)
	case due(t.answerUntil):
		return t.fail(relayUnanswered)
	case due(t.idleUntil):
		return t.fail(relayIdle)
	}
	return true
}

// tellVerdict: a receiver that was away when the transfer ended must not wait for frames.
func tellVerdict(t *Transfer, ev *TransferEvent) bool {
	if !t.graceUntil.IsZero() && t.verdict != relayNoProblem {
		t.graceUntil = time.Time{}
		t.emit(TransferEffect{Kind: EffectError, To: ev.By, Why: t.verdict})
	}
	return true
}

func removeWhenDue(t *Transfer, _ *TransferEvent) bool {
	if !t.now.Before(t.forgetAt) {
		t.emit(TransferEffect{Kind: EffectRemove})
	}
	return true
}
