/* An extension with one mistake a function, each of those that people make. */
#include <Python.h>
#ifndef Py_XSETREF
#define Py_XSETREF(place, object) do { PyObject *old = (PyObject *)(place); (place) = (object); Py_XDECREF(old); } while (0)
#endif
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>


/* A block that the compiler must not do without. */
static void *block(long size) {
    void *made = memset(malloc(size), 0x5a, size);
    __asm__ volatile("" : : "r"(made) : "memory");
    return made;
}

/* A new float whose reference is not given back. */
static PyObject *lose_float(PyObject *module, PyObject *number) {
    double value = PyFloat_AsDouble(number);
    PyFloat_FromDouble(value + 0.5);
    Py_RETURN_NONE;
}

/* A list with what is in it. */
static PyObject *lose_list(PyObject *module, PyObject *item) {
    PyObject *list = PyList_New(0);
    PyList_Append(list, item);
    Py_RETURN_NONE;
}

/* Takes a reference and keeps it in a place that it forgets: what the caller has lives for ever. */
static PyObject *forget(PyObject *module, PyObject *object) {
    Py_INCREF(object);
    Py_RETURN_NONE;
}

/* One Py_DECREF too many. */
static PyObject *overdo(PyObject *module, PyObject *object) {
    Py_DECREF(object);
    Py_RETURN_NONE;
}

/* A block that is never freed. */
static PyObject *lose_block(PyObject *module, PyObject *size) {
    long n = PyLong_AsLong(size);
    block(n);
    Py_RETURN_NONE;
}

/* Memory from the kernel that is never given back. */
static PyObject *lose_mapping(PyObject *module, PyObject *size) {
    long n = PyLong_AsLong(size);
    void *made = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made != MAP_FAILED) memset(made, 0x5a, n);
    __asm__ volatile("" : : "r"(made) : "memory");
    Py_RETURN_NONE;
}

/* And some that is in use. */
static void *volatile kept[64];
static PyObject *keep_mapping(PyObject *module, PyObject *size) {
    static int used;
    long n = PyLong_AsLong(size);
    void *made = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made != MAP_FAILED) kept[used++ % 64] = memset(made, 0xa5, n);
    Py_RETURN_NONE;
}

/* A block that knows where it comes from. */
struct request { const char *origin; void (*finish)(void *); struct request *next; char url[200]; };
static void finish(void *unused) { (void)unused; }
static PyObject *lose_request(PyObject *module, PyObject *nothing) {
    struct request *r = calloc(1, sizeof *r);
    r->origin = "culprit";
    r->finish = finish;
    strcpy(r->url, "http://example.org/index.html");
    __asm__ volatile("" : : "r"(r) : "memory");
    Py_RETURN_NONE;
}

/* A block that owns an object. */
struct holder { long size; PyObject *owned; char rest[80]; };
static PyObject *lose_holder(PyObject *module, PyObject *object) {
    struct holder *h = calloc(1, sizeof *h);
    Py_INCREF(object);
    h->owned = object;
    __asm__ volatile("" : : "r"(h) : "memory");
    Py_RETURN_NONE;
}

/* A block that leads to others, and has what was in the memory before in the rest of it. */
struct branch { struct branch *left, *right; char rest[88]; };
static struct branch *branch(int depth) {
    struct branch *b = malloc(sizeof *b);
    b->left = depth ? branch(depth - 1) : NULL;
    b->right = depth ? branch(depth - 1) : NULL;
    return b;
}
static PyObject *lose_tree(PyObject *module, PyObject *nothing) {
    struct branch *made = branch(2);
    __asm__ volatile("" : : "r"(made) : "memory");
    Py_RETURN_NONE;
}

static void *in_a_thread(void *size) {
    long n = (long)size;
    for (int i = 0; i < 50; i++) block(n);
    return NULL;
}

/* The same in a thread of its own, which has ended. */
static PyObject *lose_in_thread(PyObject *module, PyObject *size) {
    pthread_t thread;
    long n = PyLong_AsLong(size);
    if (pthread_create(&thread, NULL, in_a_thread, (void *)n) == 0) pthread_join(thread, NULL);
    Py_RETURN_NONE;
}

/* Refers to two objects, and shows the collector one of them. */
typedef struct { PyObject_HEAD PyObject *seen; PyObject *unseen; } Pair;

static int pair_traverse(Pair *self, visitproc visit, void *arg) {
    Py_VISIT(self->seen);
    return 0;
}
static int pair_clear(Pair *self) {
    Py_CLEAR(self->seen);
    Py_CLEAR(self->unseen);
    return 0;
}
static void pair_dealloc(Pair *self) {
    PyObject_GC_UnTrack(self);
    pair_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}
static PyObject *pair_set(Pair *self, PyObject *args) {
    PyObject *seen, *unseen;
    if (!PyArg_ParseTuple(args, "OO", &seen, &unseen)) return NULL;
    Py_INCREF(seen);
    Py_XSETREF(self->seen, seen);
    Py_INCREF(unseen);
    Py_XSETREF(self->unseen, unseen);
    Py_RETURN_NONE;
}
static PyMethodDef pair_methods[] = {{"set", (PyCFunction)pair_set, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyTypeObject Pair_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "culprit.Pair",
    .tp_basicsize = sizeof(Pair),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_traverse = (traverseproc)pair_traverse,
    .tp_clear = (inquiry)pair_clear,
    .tp_dealloc = (destructor)pair_dealloc,
    .tp_methods = pair_methods,
};

/* Refers to an object, and shows the collector nothing. */
typedef struct { PyObject_HEAD PyObject *held; } Box;

static int blind_traverse(PyObject *self, visitproc visit, void *arg) {
    (void)self; (void)visit; (void)arg;
    return 0;
}
static PyObject *box_set(Box *self, PyObject *held) {
    Py_INCREF(held);
    Py_XSETREF(self->held, held);
    Py_RETURN_NONE;
}
static PyMethodDef box_methods[] = {{"set", (PyCFunction)box_set, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static void blind_dealloc(Box *self) {
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->held);
    Py_TYPE(self)->tp_free((PyObject *)self);
}
static PyTypeObject Blind_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "culprit.Blind",
    .tp_basicsize = sizeof(Box),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_traverse = blind_traverse,
    .tp_dealloc = (destructor)blind_dealloc,
    .tp_methods = box_methods,
};

/* The same without telling how to look through it: a type as no version from 3.11 on takes it. */
static PyTypeObject Opaque_Type;

/* The same, and no object of the collector's at all. */
static void plain_dealloc(Box *self) {
    Py_CLEAR(self->held);
    Py_TYPE(self)->tp_free((PyObject *)self);
}
static PyTypeObject Plain_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "culprit.Plain",
    .tp_basicsize = sizeof(Box),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)plain_dealloc,
    .tp_methods = box_methods,
};

/* Instances of a heap type hold their type, and these do not let go of it. */
static void sticky_dealloc(PyObject *self) {
    freefunc release = (freefunc)PyType_GetSlot(Py_TYPE(self), Py_tp_free);
    release(self);
}
static PyType_Slot sticky_slots[] = {{Py_tp_dealloc, sticky_dealloc}, {0, NULL}};
static PyType_Spec sticky_spec = {"culprit.Sticky", sizeof(PyObject), 0, Py_TPFLAGS_DEFAULT, sticky_slots};

static PyMethodDef methods[] = {
    {"lose_float", lose_float, METH_O, NULL},
    {"lose_list", lose_list, METH_O, NULL},
    {"forget", forget, METH_O, NULL},
    {"overdo", overdo, METH_O, NULL},
    {"lose_block", lose_block, METH_O, NULL},
    {"lose_mapping", lose_mapping, METH_O, NULL},
    {"keep_mapping", keep_mapping, METH_O, NULL},
    {"lose_holder", lose_holder, METH_O, NULL},
    {"lose_tree", lose_tree, METH_O, NULL},
    {"lose_request", lose_request, METH_NOARGS, NULL},
    {"lose_in_thread", lose_in_thread, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "culprit", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_culprit(void) {
    PyObject *made = PyModule_Create(&definition);
    Opaque_Type = Blind_Type;
    PyTypeObject *types[] = {&Pair_Type, &Blind_Type, &Plain_Type};
    const char *names[] = {"Pair", "Blind", "Plain"};
    for (int i = 0; i < 3; i++) {
        if (PyType_Ready(types[i]) < 0) return NULL;
        Py_INCREF(types[i]);
        PyModule_AddObject(made, names[i], (PyObject *)types[i]);
    }
#if PY_VERSION_HEX < 0x030B0000
    Opaque_Type.tp_name = "culprit.Opaque";
    Opaque_Type.tp_traverse = NULL;
    if (PyType_Ready(&Opaque_Type) < 0) return NULL;
    Py_INCREF(&Opaque_Type);
    PyModule_AddObject(made, "Opaque", (PyObject *)&Opaque_Type);
#endif
    PyModule_AddObject(made, "Sticky", PyType_FromSpec(&sticky_spec));
    return made;
}
