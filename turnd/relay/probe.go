package relay

// How the content of messages travels.
type chunkUse int

const (
	unasked         chunkUse = iota // by DATA, until there is more than one message, for which asking pays
	byData                          // by DATA
	afterRecipients                 // by BDAT when the recipients have been accepted: behind refused ones the server takes a chunk for commands
	guarded                         // by BDAT, at once, but of a message one chunk at the most: what the server does behind refused recipients is not quite known
	atOnce                          // by BDAT, at once: the server reads a chunk as content whatever it refused
)

// probe finds out whether the server reads a chunk behind refused recipients, and one behind a refused sender, as content, by a
// transaction in which nothing can be delivered: its only recipient is the empty one, which is an error of syntax (RFC
// 5321, section 4.1.2). The chunk is itself a command, with one reply more where it is taken for one; the reply to EHLO, which
// names extensions, ends the count. EHLO is the last of a group (RFC 2920, section 3.1).
func (c *Channel) probe() {
	if !c.sync() {
		return
	}
	c.mu.Lock()
	c.transactions++
	c.opened++ // as the server counts
	c.probes++
	c.probed = c.probed[:0]
	c.mu.Unlock()
	c.owe(due{to: toProbe})
	c.put("MAIL FROM:<>")
	c.put("RCPT TO:<>")
	c.put("BDAT 6")
	c.put("NOOP")
	c.put("RSET")
	c.put("BDAT 6")
	c.put("NOOP")
	c.put("EHLO ", c.hostname)
	c.sync()
}

// What the replies to a probe are, in their order.
const (
	probeMail = iota
	probeRcpt
	probeChunk
	probeReset
	probeBare
	probeHello
	probeReplies
)

// probeAnswered gathers the replies to a probe.
func (c *Channel) probeAnswered(r Reply) (more bool, err error) {
	c.probed = append(c.probed, r)
	n := len(c.probed)
	if n < probeReplies {
		return true, nil
	}
	_, e := parseExtensions(r)
	hello := r.Positive() && e.Chunking && e.Pipelining
	switch {
	case !hello && n < probeReplies+2: // as many as chunks that are commands
		return true, nil
	case !hello:
		c.lessons.Chunking = true
		return false, errProbe
	}
	c.chunks = judgeProbe(c.probed)
	c.lessons.Chunking = c.lessons.Chunking || c.chunks == byData
	return false, nil
}

// judgeProbe says what follows from the replies to a whole probe. A server that does not know BDAT, or puts off what it can
// only refuse, is sent none.
func judgeProbe(replies []Reply) chunkUse {
	chunk, bare := replies[probeChunk], replies[probeBare]
	read := len(replies) == probeReplies && replies[probeReset].Code == 250
	no := func(r Reply) bool { return r.Code == 503 || r.Code/10 == 55 } // there is no recipient, or no transaction
	switch {
	case !read && (no(chunk) || chunk.Positive()):
		return afterRecipients
	case !read:
	case replies[probeRcpt].Positive() && chunk.Positive():
		if no(bare) {
			return guarded
		}
	case no(chunk) && no(bare):
		return atOnce
	}
	return byData
}
