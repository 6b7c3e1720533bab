package local

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/docker"
)

const (
	// handshakeBound is how long a server may take to come to the end of its
	// handshake, and answerBound how long for all of its answer. One that works takes
	// milliseconds; several answers are less than what a look at a lab gives each of
	// its parts.
	handshakeBound = 2 * time.Second
	answerBound    = 5 * time.Second
	// answerLimit is more than any bundle needs: an authority is a kilobyte.
	answerLimit = 1 << 20
	// nobodysKey is the hash of no public key. Who wants a server with that key gives
	// up when the handshake is done.
	nobodysKey = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	// timedOut is the exit code by which curl says that a bound was passed.
	timedOut = 28
)

// peers ask by curl, which kind's nodes have. It writes certificates in PEM since
// version 7.88.
type peers struct {
	// run runs a program in a node.
	run               func(ctx context.Context, node string, argv []string, s docker.Streams) error
	handshake, answer time.Duration
}

func (p peers) Get(ctx context.Context, name, cluster, url string, at netip.Addr) (lab.Answer, error) {
	var body limited
	seen, err := p.curl(ctx, NodeName(name, cluster), &body, "--connect-to", "::"+bracketed(at)+":", "--", url)
	answer := lab.Answer{Status: seen.status, Chain: seen.chain, Took: seen.took}
	var code *docker.ExitError
	switch {
	case err == nil:
		answer.Body = body.taken.Bytes()
	case errors.Is(err, errTooLarge):
		err = errTooLarge // what it did to the program is no news
	case errors.As(err, &code) && code.Code == timedOut && seen.shaken:
		err = &lab.HangingError{URL: url, Within: p.answer}
	}
	return answer, err
}

// Presented has no request sent, whatever the server speaks. One that refuses the
// handshake itself because the client has no certificate, as with TLS 1.2, shows
// nothing.
func (p peers) Presented(ctx context.Context, name, cluster string, server netip.AddrPort) ([]*x509.Certificate, error) {
	seen, err := p.curl(ctx, NodeName(name, cluster), io.Discard, "--no-alpn", "--pinnedpubkey", nobodysKey, "--", "https://"+server.String())
	if len(seen.chain) > 0 {
		return seen.chain, nil
	}
	return nil, err
}

// transfer is what curl reports about one.
type transfer struct {
	status int
	// shaken says that the handshake was done, and the server had the request.
	shaken bool
	took   time.Duration
	chain  []*x509.Certificate
}

// curl runs curl in a node. The body is all that it writes to its standard output;
// what it reports about the transfer is on its standard error. When curl itself fails, the
// error has its words and is a *docker.ExitError.
func (p peers) curl(ctx context.Context, node string, body io.Writer, args ...string) (transfer, error) {
	argv := append([]string{
		"curl", "--disable", "--silent", "--insecure", "--globoff", "--noproxy", "*",
		"--connect-timeout", seconds(p.handshake), "--max-time", seconds(p.answer),
		"--write-out", "%{stderr}%{http_code} %{time_appconnect} %{time_total}\n%{errormsg}\n%{certs}",
	}, args...)
	var told bytes.Buffer
	err := p.run(ctx, node, argv, docker.Streams{Out: body, Err: &told})
	code := (*docker.ExitError)(nil)
	if err != nil && !errors.As(err, &code) {
		return transfer{}, err
	}
	seen, words, unread := readTransfer(told.String())
	switch {
	case unread != nil && err != nil:
		return transfer{}, fmt.Errorf("%w: %s", err, strings.TrimSpace(told.String()))
	case unread != nil:
		return transfer{}, fmt.Errorf("read what curl tells: %w", unread)
	case err != nil:
		err = &curlError{words, code}
	}
	return seen, err
}

// curlError is why curl failed, in its words: the whole command is of no use to
// whoever reads them.
type curlError struct {
	words string
	code  *docker.ExitError
}

func (e *curlError) Error() string { return fmt.Sprintf("curl: (%d) %s", e.code.Code, e.words) }
func (e *curlError) Unwrap() error { return e.code }

func readTransfer(told string) (t transfer, words string, err error) {
	numbers, rest, _ := strings.Cut(told, "\n")
	var handshake, total float64
	if _, err := fmt.Sscan(numbers, &t.status, &handshake, &total); err != nil {
		return transfer{}, "", err
	}
	t.shaken, t.took = handshake > 0, time.Duration(total*float64(time.Second))
	words, certificates, _ := strings.Cut(rest, "\n")
	t.chain, err = chainOf(certificates)
	return t, words, err
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// limited takes as much as an answer may have.
type limited struct{ taken bytes.Buffer }

var errTooLarge = fmt.Errorf("the answer has more than %d bytes", answerLimit)

func (l *limited) Write(data []byte) (int, error) {
	if l.taken.Len()+len(data) > answerLimit {
		return 0, errTooLarge
	}
	return l.taken.Write(data)
}

// bracketed is an address as a URL has it.
func bracketed(at netip.Addr) string {
	if at.Is4() {
		return at.String()
	}
	return "[" + at.String() + "]"
}

// chainOf reads what is in PEM between lines of other text.
func chainOf(text string) (chain []*x509.Certificate, err error) {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return chain, nil
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read the chain: %w", err)
		}
		chain = append(chain, certificate)
	}
}
