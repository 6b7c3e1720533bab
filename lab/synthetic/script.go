package synthetic

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Kind is what the bundle endpoint answers.
type Kind string

// The kinds of answers. Where nothing else is said the status is 200 and the
// certificate is the right one.
const (
	// TrueBundle is the bundle as it is.
	TrueBundle Kind = "bundle"
	// OlderBundle is the version before, with its lower sequence number.
	OlderBundle Kind = "older"
	// EmptyBundle is newer than the true one, and has a list of no keys.
	EmptyBundle Kind = "empty"
	// Nothing is an empty object: it does not even have the list.
	Nothing Kind = "nothing"
	// Foreign is Answer.Document, such as the bundle of another trust domain.
	Foreign Kind = "foreign"
	// UnknownKeyType and UnknownKeyUse are the true bundle and one more key, whose
	// "kty" or "use" nobody knows. The SPIFFE Trust Domain and Bundle standard
	// (section 4.2) wants that key ignored.
	UnknownKeyType Kind = "unknown-kty"
	UnknownKeyUse  Kind = "unknown-use"
	// ServerError is status 500.
	ServerError Kind = "error"
	// Redirect is status 302 to Answer.URL.
	Redirect Kind = "redirect"
	// Huge is the true bundle behind Answer.MiB of padding.
	Huge Kind = "huge"
	// Slow is the true bundle, one byte every Answer.Every.
	Slow Kind = "slow"
	// Endless begins a JSON text and goes on for ever, with 4 KiB every
	// Answer.Every.
	Endless Kind = "endless"
	// Hang takes the request and never answers.
	Hang Kind = "hang"
	// WrongCertificate shows the certificate that Answer.Shows asks for. To who
	// accepts it, it tells the truth.
	WrongCertificate Kind = "wrong-certificate"
	// NotJSON is the page that a web server would show.
	NotJSON Kind = "not-json"
)

// Answer is one step of a script.
type Answer struct {
	Kind Kind `json:"kind"`
	// Times is how many connections get this answer before it is the next one's
	// turn; zero is one. The last answer of a script stays for ever.
	Times int `json:"times,omitempty"`
	// Document is what Foreign answers.
	Document json.RawMessage `json:"document,omitempty"`
	// URL is where Redirect leads.
	URL string `json:"url,omitempty"`
	// MiB is how much Huge has.
	MiB int `json:"mib,omitempty"`
	// Every is the pace of Slow and Endless; zero is a hundredth of a second.
	Every time.Duration `json:"every,omitempty"`
	// Shows is the X509-SVID that WrongCertificate shows, without a key. Nil is a
	// right one of another SPIFFE ID.
	Shows *X509Request `json:"shows,omitempty"`
}

// Script is what the bundle endpoint answers, one after the other.
type Script []Answer

// defaultPace is that of Slow and Endless: a bundle of some KiB takes Slow half a
// minute.
const defaultPace = 10 * time.Millisecond

type playing struct {
	script Script
	given  int // times that the first answer of script was given
	// over is closed when another script is played.
	over chan struct{}
}

func newPlaying(script Script) *playing { return &playing{script: script, over: make(chan struct{})} }

func (p *playing) next() Answer {
	answer := p.script[0]
	p.given++
	if len(p.script) > 1 && p.given >= max(answer.Times, 1) {
		p.script, p.given = p.script[1:], 0
	}
	return answer
}

// Play makes the bundle endpoint answer by that script from the next connection
// on. What goes on of the script before it ends: the connections of answers that
// hang, or are still being sent at a pace or in a size that take time, are
// closed.
func (d *Domain) Play(script Script) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(script) == 0 {
		return errors.New("play script: it has no answers")
	}
	var problems []error
	for i, answer := range script {
		if err := d.check(answer); err != nil {
			problems = append(problems, fmt.Errorf("play script: answer %d, %q: %w", i+1, answer.Kind, err))
		}
	}
	if problems != nil {
		return errors.Join(problems...)
	}
	close(d.playing.over)
	d.playing = newPlaying(script)
	return nil
}

// check says why an answer cannot be given.
func (d *Domain) check(a Answer) error {
	if a.Times < 0 || a.Every < 0 || a.MiB < 0 {
		return errors.New("a number is below zero")
	}
	switch a.Kind {
	case TrueBundle, EmptyBundle, Nothing, UnknownKeyType, UnknownKeyUse, ServerError, Slow, Endless, Hang, NotJSON:
		return nil
	case OlderBundle:
		if len(d.versions) < 2 {
			return errors.New("there is no older version: the bundle has not changed yet")
		}
		return nil
	case Foreign:
		if len(a.Document) == 0 {
			return errors.New("document is missing")
		}
		return nil
	case Redirect:
		if to, err := url.Parse(a.URL); err != nil || to.Host == "" {
			return fmt.Errorf("url %q is none", a.URL)
		}
		return nil
	case Huge:
		if a.MiB == 0 {
			return errors.New("mib is missing")
		}
		return nil
	case WrongCertificate:
		_, err := d.shown(a)
		return err
	default:
		return errors.New("kind is unknown")
	}
}

// shown returns the chain that the endpoint shows along with an answer. The
// caller holds the lock.
func (d *Domain) shown(a Answer) ([]byte, error) {
	request := X509Request{ID: d.EndpointID()}
	if a.Kind == WrongCertificate {
		request.ID = spiffeid.RequireFromPath(d.td, "/spire/other")
		if a.Shows != nil {
			request = *a.Shows
		}
	}
	if request.PublicKey != nil {
		return nil, errors.New("shows has a public key: the endpoint shows its own")
	}
	var err error
	if request.PublicKey, err = PublicKey(d.endpoint); err != nil {
		return nil, err
	}
	return d.mintX509(request, d.signing)
}
