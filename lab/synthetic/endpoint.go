package synthetic

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// patience is how long a client may take for its handshake and request, and
	// to read an answer that is not meant to last.
	patience = 10 * time.Second
	// mostOpen is how many connections may be open. More wait to be accepted.
	mostOpen = 256
	// mostKept is how many requests are kept; the oldest go first.
	mostKept = 4096
	// longestRequest is in bytes, its header included.
	longestRequest = 64 << 10
	// piece is what Endless sends at once.
	piece = 4 << 10
)

// Ending is how a connection to the bundle endpoint ended.
type Ending string

// The endings.
const (
	UnderWay Ending = "under-way"
	// Answered: all was sent.
	Answered Ending = "answered"
	// HandshakeFailed: the client did not accept the certificate, or spoke no TLS
	// that the endpoint knows.
	HandshakeFailed Ending = "handshake-failed"
	// NoRequest: the client asked for nothing that can be read.
	NoRequest Ending = "no-request"
	// ClientGone: the client left before all was sent.
	ClientGone Ending = "client-gone"
	// Cut: another script was played, or the endpoint closed, before all was sent.
	Cut Ending = "cut"
)

// Request is one connection to the bundle endpoint, which has one request.
type Request struct {
	// Number counts from 1.
	Number int `json:"number"`
	// Time is when the client said hello.
	Time       time.Time `json:"time"`
	RemoteAddr string    `json:"remoteAddr"`
	// Path is empty where it came to no request.
	Path   string `json:"path,omitempty"`
	Answer Kind   `json:"answer"`
	Ended  Ending `json:"ended"`
	// Detail is the error in words; empty where there was none.
	Detail string `json:"detail,omitempty"`
	// Took is from hello to the end; zero while it is under way.
	Took time.Duration `json:"took,omitempty"`
}

// Requests returns those to the bundle endpoint, in the order in which they
// came: the last few thousand.
func (d *Domain) Requests() []Request {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]Request, len(d.requests))
	for i, r := range d.requests {
		all[i] = *r
	}
	return all
}

// Serve answers at the bundle endpoint by the script that is played, with the
// profile https_spiffe, whatever path is asked for. It closes the listener and
// all connections when ctx ends, and then returns nil.
//
// A connection has one answer, which is decided when the client says hello:
// which certificate is shown is part of it.
func (d *Domain) Serve(ctx context.Context, listener net.Listener) error {
	var open sync.WaitGroup
	defer open.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closed := make(chan error, 1)
	context.AfterFunc(ctx, func() { closed <- listener.Close() })
	slots := make(chan struct{}, mostOpen)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return <-closed
		}
		conn, err := listener.Accept()
		switch {
		case ctx.Err() != nil && err != nil:
			return <-closed
		case err != nil:
			return fmt.Errorf("serve bundle endpoint of %s: %w", d.td, err)
		}
		open.Go(func() {
			defer func() { <-slots }()
			d.serve(ctx, conn)
		})
	}
}

type exchange struct {
	request *Request
	answer  Answer
	over    <-chan struct{} // of the script that the answer is from
}

var (
	errGone = errors.New("the client left")
	errOver = errors.New("another script is played")
)

func (d *Domain) serve(ctx context.Context, raw net.Conn) {
	ctx, end := context.WithCancelCause(ctx)
	var closing sync.WaitGroup
	context.AfterFunc(ctx, func() { _ = raw.Close() }) // who is at the other end may have closed it
	defer closing.Wait()
	defer end(nil)

	var x *exchange
	conn := tls.Server(raw, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (config *tls.Config, err error) {
		x, config, err = d.begin(raw.RemoteAddr())
		return config, err
	}})
	if err := raw.SetDeadline(time.Now().Add(patience)); err != nil {
		return
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		if x != nil {
			d.end(x, HandshakeFailed, err)
		}
		return
	}
	request, err := http.ReadRequest(bufio.NewReader(io.LimitReader(conn, longestRequest)))
	if err != nil {
		d.end(x, NoRequest, err)
		return
	}
	d.mu.Lock()
	x.request.Path = request.URL.Path
	d.mu.Unlock()

	if x.lasts() {
		if err := raw.SetDeadline(time.Time{}); err != nil {
			d.end(x, ClientGone, err)
			return
		}
		closing.Go(func() {
			select {
			case <-x.over:
				end(errOver)
			case <-ctx.Done():
			}
		})
	}
	// There is no second request: what comes now can only be the end.
	closing.Go(func() {
		_, _ = io.Copy(io.Discard, conn)
		end(errGone)
	})
	err = d.reply(ctx, x.answer, request, conn)
	switch cause := context.Cause(ctx); {
	case err == nil:
		d.end(x, Answered, nil)
		_ = conn.Close() // says that the answer is whole; who has it may have left
	case errors.Is(cause, errGone), cause == nil && broken(err):
		d.end(x, ClientGone, errGone)
	case cause == nil:
		d.end(x, ClientGone, err)
	default:
		d.end(x, Cut, cause)
	}
}

// broken reports whether err says that a connection is no more, in one of the many
// ways in which systems say so.
func broken(err error) bool {
	var network net.Error
	return errors.As(err, &network) && !network.Timeout()
}

// begin decides what a new connection gets.
func (d *Domain) begin(from net.Addr) (*exchange, *tls.Config, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := &exchange{answer: d.playing.next(), over: d.playing.over}
	d.asked++
	x.request = &Request{Number: d.asked, Time: d.now().UTC(), RemoteAddr: from.String(), Answer: x.answer.Kind, Ended: UnderWay}
	d.requests = append(d.requests, x.request)
	if len(d.requests) > mostKept {
		d.requests = append([]*Request(nil), d.requests[1:]...)
	}
	leaf, err := d.shown(x.answer)
	if err != nil {
		return x, nil, err
	}
	return x, &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf}, PrivateKey: d.endpoint}},
		// One request for each connection, and a full handshake for each.
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,
	}, nil
}

func (d *Domain) end(x *exchange, how Ending, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x.request.Ended, x.request.Took = how, d.now().Sub(x.request.Time)
	if err != nil {
		x.request.Detail = err.Error()
	}
}

// lasts reports whether the answer is one that another script ends.
func (x *exchange) lasts() bool {
	switch x.answer.Kind {
	case Huge, Slow, Endless, Hang:
		return true
	default:
		return false
	}
}

// reply answers request on w. Nothing is kept in memory but one bundle.
func (d *Domain) reply(ctx context.Context, a Answer, request *http.Request, w io.Writer) error {
	if a.Kind == Hang {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	d.mu.Lock()
	body, err := d.document(a)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	response := &http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: request, Close: true,
		Header:        http.Header{"Content-Type": {"application/json"}},
		ContentLength: int64(len(body)),
	}
	var from io.Reader = bytes.NewReader(body)
	pace := a.Every
	if pace == 0 {
		pace = defaultPace
	}
	switch a.Kind {
	case ServerError:
		response.StatusCode = http.StatusInternalServerError
		response.Header.Set("Content-Type", "text/plain")
	case NotJSON:
		response.Header.Set("Content-Type", "text/html")
	case Redirect:
		response.StatusCode = http.StatusFound
		response.Header.Set("Location", a.URL)
	case Huge:
		size := int64(a.MiB) << 20
		opening, closing := padding+`"`, `",`
		response.ContentLength += int64(len(opening)+len(closing)-1) + size
		from = io.MultiReader(strings.NewReader(opening), io.LimitReader(blank{}, size), strings.NewReader(closing), bytes.NewReader(body[1:]))
	case Slow:
		from = &paced{from: bufio.NewReader(from), size: 1, every: pace, done: ctx.Done()}
	case Endless:
		response.ContentLength, response.TransferEncoding = -1, []string{"chunked"}
		from = &paced{from: bufio.NewReaderSize(io.MultiReader(strings.NewReader(padding+`"`), blank{}), piece), size: piece, every: pace, done: ctx.Done()}
	}
	response.Body = io.NopCloser(from)
	return response.Write(w)
}

// padding opens a JSON object with a member that no bundle has.
const padding = `{"padding":`

// document is the text that an answer consists of, or is made from.
func (d *Domain) document(a Answer) ([]byte, error) {
	switch a.Kind {
	case OlderBundle:
		return d.versions[len(d.versions)-2].Marshal()
	case EmptyBundle:
		return fmt.Appendf(nil, `{"keys":[],"spiffe_refresh_hint":%d,"spiffe_sequence":%d}`,
			int(refreshHint.Seconds()), len(d.versions)+1), nil
	case Nothing:
		return []byte("{}"), nil
	case Foreign:
		return a.Document, nil
	case UnknownKeyType:
		return d.withKey(map[string]any{"kty": "fedlab", "use": "x509-svid"})
	case UnknownKeyUse:
		return d.withKey(map[string]any{"use": "fedlab-svid"})
	case ServerError:
		return []byte("the bundle endpoint has a problem\n"), nil
	case NotJSON:
		return []byte("<!doctype html><title>It works</title>\n"), nil
	case Redirect, Endless:
		return nil, nil
	default:
		return d.bundle().Marshal()
	}
}

// withKey returns the true bundle with one more key: a good one, except for what
// other says.
func (d *Domain) withKey(other map[string]any) ([]byte, error) {
	text, err := d.bundle().Marshal()
	if err != nil {
		return nil, err
	}
	var document map[string]any
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	keys := document["keys"].([]any)
	key := map[string]any{"kid": "unknown"}
	for _, from := range []map[string]any{keys[0].(map[string]any), other} {
		for name, value := range from {
			key[name] = value
		}
	}
	document["keys"] = append(keys, key)
	return json.Marshal(document)
}

// blank is an endless text of one letter.
type blank struct{}

func (blank) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

// paced reads size bytes of another reader at once, every so often, until done.
type paced struct {
	from  *bufio.Reader
	size  int
	every time.Duration
	done  <-chan struct{}
}

func (p *paced) Read(b []byte) (int, error) {
	// The end comes without a pause: who has all may leave.
	if _, err := p.from.Peek(1); err != nil {
		return 0, err
	}
	timer := time.NewTimer(p.every)
	defer timer.Stop()
	select {
	case <-timer.C:
		return p.from.Read(b[:min(len(b), p.size)])
	case <-p.done:
		return 0, errors.New("nobody waits for it any more")
	}
}
