package lock

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

const (
	// answerBound is how long a holder may take to say who it is. It is asked
	// only for the message: a holder that is stopped does not answer.
	answerBound = time.Second
	// answerLimit is more than a holder says.
	answerLimit = 4 << 10
	// tries is how often a name is tried that was taken, and whose holder has
	// ended before it could be asked.
	tries = 3
)

// take listens on a socket in the abstract namespace, which has no file: the
// kernel lets one process have a name there, and takes the name back when the
// process ends (unix(7)).
func take(name string, says self) (func() error, error) {
	address := &net.UnixAddr{Name: "@fedlab/" + name, Net: "unix"}
	answer, err := json.Marshal(says)
	if err != nil {
		return nil, err
	}
	held := &HeldError{Name: name}
	for range tries {
		listener, err := net.ListenUnix("unix", address)
		if err == nil {
			go tell(listener, answer)
			return listener.Close, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
		if held.Holder, err = ask(address); err == nil {
			return nil, held
		}
	}
	return nil, held
}

// tell answers each caller with who the holder is, until the listener is closed.
func tell(listener *net.UnixListener, answer []byte) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// The process has too many files open, say. The lock is held all
			// the same, and who asks is told by the kernel.
			<-time.After(answerBound)
			continue
		}
		// A caller that does not listen loses the answer.
		_ = conn.SetDeadline(time.Now().Add(answerBound))
		_, _ = conn.Write(answer)
		_ = conn.Close()
	}
}

// ask returns who listens at an address. It fails when nobody does any more.
func ask(address *net.UnixAddr) (h Holder, err error) {
	// The kernel decides at once: a holder need not be awake to be connected to.
	conn, err := net.DialUnix("unix", nil, address)
	if err != nil {
		return h, err
	}
	defer func() { _ = conn.Close() }()
	h = peer(conn)
	// Whoever is connected exists; that it does not answer is no error.
	_ = conn.SetDeadline(time.Now().Add(answerBound))
	data, _ := io.ReadAll(io.LimitReader(conn, answerLimit))
	says := heard(data)
	h.Command, h.Since = says.Command, says.Since
	return h, nil
}

// peer returns what the kernel says of the process that listens at the other end
// (SO_PEERCRED of unix(7)).
func peer(conn *net.UnixConn) (h Holder) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return h
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			h = Holder{PID: int(cred.Pid), User: userName(cred.Uid)}
		}
	})
	return h
}
