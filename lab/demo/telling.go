package demo

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Catalogue knows the demo programs. It implements lab.Programs.
type Catalogue struct{}

// Answered implements lab.Programs.
func (Catalogue) Answered(by *topology.Workload, told []byte, from, to *topology.Workload) error {
	if by.App.Name == broker {
		return quoted(told, to.ID)
	}
	return reported(by.Name, told, from.ID, to.ID)
}

// Self implements lab.Programs.
func (Catalogue) Self(told []byte) (id spiffeid.ID, verified bool, err error) {
	var answer struct {
		Self struct {
			ID         string    `json:"id"`
			VerifiedBy *struct{} `json:"verifiedBy"`
		} `json:"self"`
	}
	if err := json.Unmarshal(told, &answer); err != nil {
		return id, false, err
	}
	if answer.Self.ID == "" {
		return id, false, errors.New("it has no X509-SVID")
	}
	id, err = spiffeid.FromString(answer.Self.ID)
	return id, answer.Self.VerifiedBy != nil, err
}

// broker is the app that reports quotes, and not calls.
const broker = "broker-webapp"

// quoted returns nil when a broker has quotes from a server.
func quoted(told []byte, server spiffeid.ID) error {
	var answer struct {
		Peer *struct {
			ID string `json:"id"`
		} `json:"peer"`
		Error *problem `json:"error"`
	}
	err := json.Unmarshal(told, &answer)
	switch {
	case err != nil:
		return err
	case answer.Error != nil:
		return answer.Error
	case answer.Peer == nil:
		return errors.New("nobody answered yet")
	case answer.Peer.ID != server.String():
		return fmt.Errorf("%s answered, want %s", answer.Peer.ID, server)
	}
	return nil
}

// reported returns nil when all calls of caller to called that a workload reports
// end as they should, and one of them with an answer.
func reported(by string, told []byte, caller, called spiffeid.ID) error {
	var report struct {
		Calls []struct {
			Name    string   `json:"name"`
			Caller  string   `json:"caller"`
			Server  string   `json:"server"`
			State   string   `json:"state"`
			Problem *problem `json:"problem"`
		} `json:"calls"`
	}
	if err := json.Unmarshal(told, &report); err != nil {
		return err
	}
	answered := false
	for _, c := range report.Calls {
		switch {
		case c.Caller != caller.String() || c.Server != called.String():
		case c.State == "answered":
			answered = true
		case c.State == "failed" && c.Problem != nil:
			return fmt.Errorf("%q: %w", c.Name, c.Problem)
		case c.State != "refused":
			return fmt.Errorf("%q is %s", c.Name, c.State)
		}
	}
	if !answered {
		return fmt.Errorf("%s reports no answer yet", by)
	}
	return nil
}

// problem is why a call failed, in the words of a demo program.
type problem struct {
	What   string `json:"what"`
	Detail string `json:"detail"`
}

func (p *problem) Error() string { return p.What + ": " + p.Detail }
