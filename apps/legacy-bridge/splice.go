package main

import (
	"context"
	"errors"
	"io"
	"net"
)

// halfCloser is a connection that can end one direction and keep the other.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// splice copies between two connections in both directions until both have
// ended, or ctx ends, and closes them. It returns how many bytes went to b and
// to a, and why it ended early.
func splice(ctx context.Context, a, b net.Conn) (toB, toA int64, err error) {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_, _ = a.Close(), b.Close() // which ends both directions
		close(closed)
	})
	there := make(chan error, 1)
	go func() {
		var err error
		toB, err = pass(b, a)
		there <- err
	}()
	toA, err = pass(a, b)
	err = errors.Join(err, <-there)
	if !stop() {
		<-closed
		return toB, toA, context.Cause(ctx)
	}
	_, _ = a.Close(), b.Close() // both directions have ended
	return toB, toA, err
}

// pass copies from one connection to the other, and tells the other that
// there is no more. The opposite direction goes on: a server that refuses says
// why in an alert, which is read even when nothing can be written any more.
func pass(to, from net.Conn) (int64, error) {
	n, err := io.Copy(to, from)
	if half, ok := to.(halfCloser); ok {
		_ = half.CloseWrite() // fails if it is closed, which is as good
	}
	return n, err
}
