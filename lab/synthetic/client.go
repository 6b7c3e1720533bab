package synthetic

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// longestAnswer is in bytes: a full record of a stream.
const longestAnswer = 64 << 20

// Client reaches a Domain from afar, through what its Control serves, and the
// program apps/synthetic. Its methods may be called at the same time.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// Dial returns a client of what serves Control at base, such as
// http://127.0.0.1:41234. Nothing is sent before the first call.
func Dial(base, token string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("read address of synthetic trust domain: %w", err)
	}
	if u.Scheme == "" || u.Host == "" {
		return nil, fmt.Errorf("read address of synthetic trust domain: %q is no URL of a server", base)
	}
	return &Client{base: u, token: token, http: &http.Client{
		// The token is for the server that was dialled.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// String names where the client calls, and not its token.
func (c *Client) String() string { return "client of synthetic trust domain at " + c.base.String() }

// Play is Domain.Play.
func (c *Client) Play(ctx context.Context, script Script) error {
	return c.call(ctx, "play script", http.MethodPut, "script", script, nil)
}

// Requests is Domain.Requests.
func (c *Client) Requests(ctx context.Context) (requests []Request, err error) {
	err = c.call(ctx, "list requests", http.MethodGet, "requests", nil, &requests)
	return requests, err
}

// Bundle is Domain.Bundle.
func (c *Client) Bundle(ctx context.Context) (*spiffebundle.Bundle, error) {
	var answer bundleAnswer
	if err := c.call(ctx, "get bundle", http.MethodGet, "bundle", nil, &answer); err != nil {
		return nil, err
	}
	return spiffebundle.Parse(answer.TrustDomain, answer.Bundle)
}

// Present makes the program apps/synthetic mint itself the X509-SVID that its
// calls present from now on. r has no public key: the program makes one.
func (c *Client) Present(ctx context.Context, r X509Request) error {
	return c.call(ctx, "present X509-SVID", http.MethodPut, "identity", r, nil)
}

// Trust makes the program apps/synthetic verify the servers that it calls with
// these bundles, and with no others.
func (c *Client) Trust(ctx context.Context, bundles ...*spiffebundle.Bundle) error {
	documents := map[spiffeid.TrustDomain]json.RawMessage{}
	for _, bundle := range bundles {
		document, err := bundle.Marshal()
		if err != nil {
			return fmt.Errorf("write bundle of %s: %w", bundle.TrustDomain(), err)
		}
		documents[bundle.TrustDomain()] = document
	}
	return c.call(ctx, "trust bundles", http.MethodPut, "bundles", documents, nil)
}

// Start makes the program apps/synthetic follow order until Stop. An order with
// the name of one that was not stopped is refused.
func (c *Client) Start(ctx context.Context, order traffic.Order) error {
	if err := order.Check(); err != nil {
		return err
	}
	return c.call(ctx, fmt.Sprintf("start stream %q", order.Name), http.MethodPut, streamPath(order.Name), order, nil)
}

// Stream returns what has been recorded so far.
func (c *Client) Stream(ctx context.Context, name string) (s traffic.Stream, err error) {
	err = c.call(ctx, fmt.Sprintf("read stream %q", name), http.MethodGet, streamPath(name), nil, &s)
	return s, err
}

// Stop ends the calls, waits for the one under way, and returns the whole record,
// which the program then forgets.
func (c *Client) Stop(ctx context.Context, name string) (s traffic.Stream, err error) {
	err = c.call(ctx, fmt.Sprintf("stop stream %q", name), http.MethodDelete, streamPath(name), nil, &s)
	return s, err
}

func streamPath(name string) string { return "streams/" + url.PathEscape(name) }

// call sends command, unless it is nil, and reads the answer into result, unless
// that is nil.
func (c *Client) call(ctx context.Context, doing, method, path string, command, result any) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s of synthetic trust domain at %s: %w", doing, c.base.Host, err)
		}
	}()
	var body io.Reader
	if command != nil {
		text, err := json.Marshal(command)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base.JoinPath(path).String(), body)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(response.Body, longestAnswer))
	switch {
	case err != nil:
		return err
	case response.StatusCode/100 != 2:
		var told refusal
		if err := json.Unmarshal(text, &told); err != nil || told.Reason == "" {
			return fmt.Errorf("status %d: %q", response.StatusCode, text[:min(len(text), 200)])
		}
		return fmt.Errorf("status %d: %s", response.StatusCode, told.Reason)
	case result == nil:
		return nil
	default:
		return json.Unmarshal(text, result)
	}
}
