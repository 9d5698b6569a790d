/* Types whose sizes are told wrong, and some whose are told right: what misstated.rs looks at. */
#include <Python.h>
#include <stdlib.h>

typedef struct {
    PyObject_HEAD
    PyObject *held;
    void *buffer;
} Thing;

static int thing_traverse(Thing *self, visitproc visit, void *arg)
{
    Py_VISIT(self->held);
    return 0;
}

static int thing_clear(Thing *self)
{
    Py_CLEAR(self->held);
    return 0;
}

/* The objects live as long as the test. */
static void thing_dealloc(Thing *self) { (void)self; }

#define THING(NAME) \
    static PyTypeObject NAME = { \
        PyVarObject_HEAD_INIT(NULL, 0) \
        .tp_name = "sizes." #NAME, \
        .tp_basicsize = sizeof(Thing), \
        .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, \
        .tp_traverse = (traverseproc)thing_traverse, \
        .tp_clear = (inquiry)thing_clear, \
        .tp_dealloc = (destructor)thing_dealloc, \
    }

THING(Honest);  /* what it says is what it takes */
THING(Larger);  /* allocates more than its basic size */
THING(Itemised);/* an item size, and a pointer where ob_size would be */
THING(Pointing);/* keeps 1000 bytes elsewhere */
THING(Counting);/* the same, and counts them in a __sizeof__ of its own */

static PyObject *make(PyTypeObject *type, Py_ssize_t room, size_t buffer)
{
    Py_ssize_t basic = type->tp_basicsize, item = type->tp_itemsize;
    /* what the allocator is told, for this one object */
    type->tp_basicsize = room;
    type->tp_itemsize = 0;
    Thing *self = PyObject_GC_New(Thing, type);
    type->tp_basicsize = basic;
    type->tp_itemsize = item;
    if (self == NULL)
        return NULL;
    Py_INCREF(Py_None);
    self->held = Py_None;
    self->buffer = buffer ? calloc(1, buffer) : NULL;
    PyObject_GC_Track((PyObject *)self);
    return (PyObject *)self;
}

static PyObject *honest(PyObject *m, PyObject *a) { return make(&Honest, sizeof(Thing), 0); }
static PyObject *larger(PyObject *m, PyObject *a) { return make(&Larger, 400, 0); }
static PyObject *itemised(PyObject *m, PyObject *a) { return make(&Itemised, sizeof(Thing), 0); }
static PyObject *pointing(PyObject *m, PyObject *a) { return make(&Pointing, sizeof(Thing), 1000); }
static PyObject *counting(PyObject *m, PyObject *a) { return make(&Counting, sizeof(Thing), 1000); }

static PyObject *counting_sizeof(PyObject *self, PyObject *unused)
{
    return PyLong_FromSize_t(sizeof(Thing) + 1000);
}
static PyMethodDef counting_methods[] = {{"__sizeof__", counting_sizeof, METH_NOARGS, ""}, {0}};

static PyMethodDef functions[] = {
    {"Honest", honest, METH_NOARGS, ""},     {"Larger", larger, METH_NOARGS, ""},
    {"Itemised", itemised, METH_NOARGS, ""}, {"Pointing", pointing, METH_NOARGS, ""},
    {"Counting", counting, METH_NOARGS, ""}, {0},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "sizes", 0, -1, functions};

PyMODINIT_FUNC PyInit_sizes(void)
{
    Itemised.tp_itemsize = 8;
    Counting.tp_methods = counting_methods;
    if (PyType_Ready(&Honest) || PyType_Ready(&Larger) || PyType_Ready(&Itemised)
        || PyType_Ready(&Pointing) || PyType_Ready(&Counting))
        return NULL;
    return PyModule_Create(&module);
}
