package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// complaintBound is how long a forwarded connection that has ended waits to be
// told why. The answer precedes the end, so that it is there already.
const complaintBound = time.Second

// Dial opens a connection to a port of a pod through the API server. Nothing
// listens on this machine. Each connection has its own way to the API server.
//
// That nobody listens on the port shows only on the first Read, whose error
// then says so. Deadlines hold; closing one direction alone is not possible.
// The caller closes the connection; ctx is for the dialling only.
func (c *Cluster) Dial(ctx context.Context, namespace, pod string, port int) (net.Conn, error) {
	conn, err := c.dial(ctx, namespace, pod, port)
	if err != nil {
		return nil, fmt.Errorf("connect to port %d of pod %s/%s: %w", port, namespace, pod, err)
	}
	return conn, nil
}

func (c *Cluster) dial(ctx context.Context, namespace, pod string, port int) (net.Conn, error) {
	dialer, err := c.portForwarder(namespace, pod)
	if err != nil {
		return nil, err
	}
	type dialled struct {
		conn net.Conn
		err  error
	}
	// client-go's dialers take no context: a connection that comes too late
	// is closed again.
	done := make(chan dialled)
	go func() {
		conn, err := forward(dialer, port)
		select {
		case done <- dialled{conn, err}:
		case <-ctx.Done():
			if err == nil {
				_ = conn.Close()
			}
		}
	}()
	select {
	case d := <-done:
		return d.conn, d.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *Cluster) portForwarder(namespace, pod string) (httpstream.Dialer, error) {
	at := c.subresource(namespace, pod, "portforward")
	overWebSocket, err := portforward.NewSPDYOverWebsocketDialerForStreamingWithLogger(logr.Discard(), at, c.config)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	overSPDY := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, at)
	return portforward.NewFallbackDialerForStreaming(overWebSocket, overSPDY, isWithoutWebSocket), nil
}

// forward opens the two streams of which port forwarding makes a connection:
// one for the data, and one on which the other side complains.
func forward(dialer httpstream.Dialer, port int) (net.Conn, error) {
	way, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, err
	}
	open := func(kind string) (httpstream.Stream, error) {
		header := http.Header{}
		header.Set(corev1.StreamType, kind)
		header.Set(corev1.PortHeader, strconv.Itoa(port))
		header.Set(corev1.PortForwardRequestIDHeader, "0")
		return way.CreateStream(header)
	}
	complaints, err := open(corev1.StreamTypeError)
	if err != nil {
		return nil, errors.Join(err, way.Close())
	}
	data, err := open(corev1.StreamTypeData)
	if err != nil {
		return nil, errors.Join(err, way.Close())
	}
	near, far := net.Pipe()
	conn := &forwarded{Conn: near}
	go conn.carry(far, way, data, complaints)
	return conn, nil
}

// forwarded is the caller's end of a pipe, which has the deadlines that a
// stream lacks.
type forwarded struct {
	net.Conn
	// lost says why the other side ended the connection. It is written before
	// the pipe is closed, and read after.
	lost error
}

func (f *forwarded) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	if errors.Is(err, io.EOF) && f.lost != nil {
		err = f.lost
	}
	return n, err
}

// carry moves bytes between the pipe and the stream until one of them ends.
func (f *forwarded) carry(far net.Conn, way httpstream.Connection, data, complaints httpstream.Stream) {
	complaint := make(chan error, 1)
	go func() {
		// This side has nothing to say on the stream for complaints.
		_ = complaints.Close()
		text, err := io.ReadAll(complaints)
		if len(text) > 0 {
			err = errors.New(strings.TrimSpace(string(text)))
		}
		complaint <- err
	}()
	go func() {
		_, _ = io.Copy(data, far)
		// The caller has closed its end, or the stream takes no more; either
		// ends the connection.
		_ = data.Close()
		_ = way.Close()
	}()
	_, err := io.Copy(far, data)
	if err == nil {
		bound := time.NewTimer(complaintBound)
		defer bound.Stop()
		select {
		case err = <-complaint:
		case <-bound.C:
		}
	}
	f.lost = err
	_ = far.Close()
}
